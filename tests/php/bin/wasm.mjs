// One PHP script on a PHP of any version, compiled to WebAssembly; the script sees this machine's files and its loopback network.
//
//   node wasm.mjs MODULES VERSION SCRIPT [ARGUMENT..]
//
// MODULES is the folder of the npm packages. Prints what the script prints; a warning, notice or deprecation is part of that.

import { pathToFileURL } from 'node:url';

const [modules, version, script, ...argv] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${modules}/${name}/index.js`).href);
const { loadNodeRuntime, useHostFilesystem } = await load('@php-wasm/node');
const { PHP } = await load('@php-wasm/universal');

const php = new PHP(await loadNodeRuntime(version));
useHostFilesystem(php);
const run = await php.runStream({ scriptPath: script, $_SERVER: { ARGUMENTS: JSON.stringify(argv) } });
process.stdout.write(await run.stdoutText);
process.stderr.write(await run.stderrText);
process.exit(await run.exitCode);
