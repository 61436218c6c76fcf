// The peer of the benchmark: signed requests, nonces, meters, idempotency, orders paid from credit and a hash-chained audit log, each
// request one durable transaction. Arguments: the database's path, and a JSON file with the resellers.
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Database from 'better-sqlite3';
import Fastify from 'fastify';

const [path, file] = process.argv.slice(2);
const db = new Database(path);
db.pragma('journal_mode = WAL');
db.pragma('synchronous = FULL');
db.exec(`
  CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
  CREATE TABLE keys (id TEXT PRIMARY KEY, account INTEGER NOT NULL, secret TEXT NOT NULL, last_used INTEGER) WITHOUT ROWID;
  CREATE TABLE nonces (key TEXT NOT NULL, nonce TEXT NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (key, nonce)) WITHOUT ROWID;
  CREATE TABLE meters (key TEXT PRIMARY KEY, level INTEGER NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE services (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, body TEXT NOT NULL);
  CREATE TABLE invoices (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, status TEXT NOT NULL, total INTEGER NOT NULL, issued INTEGER NOT NULL, paid INTEGER);
  CREATE TABLE orders (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, product INTEGER NOT NULL, cycle TEXT NOT NULL, total INTEGER NOT NULL,
    invoice INTEGER NOT NULL, status TEXT NOT NULL, created INTEGER NOT NULL, due INTEGER);
  CREATE INDEX orders_account ON orders (account);
  CREATE TABLE ledger (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, at INTEGER NOT NULL, amount INTEGER NOT NULL, reference TEXT NOT NULL);
  CREATE TABLE idempotency (key TEXT NOT NULL, name TEXT NOT NULL, body_hash BLOB NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    expires INTEGER NOT NULL, PRIMARY KEY (key, name)) WITHOUT ROWID;
  CREATE TABLE audit (stream INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, key TEXT, peer TEXT, method TEXT, path TEXT,
    status INTEGER, request TEXT, hash BLOB NOT NULL, UNIQUE (stream, seq));
  CREATE TABLE heads (stream INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL);
`);
for (const { key, secret, account, service } of JSON.parse(readFileSync(file, 'utf8'))) {
  db.prepare('INSERT INTO accounts VALUES (?, 1000000000000)').run(account);
  db.prepare('INSERT INTO keys VALUES (?, ?, ?, NULL)').run(key, account, secret);
  db.prepare('INSERT INTO services VALUES (?, ?, ?)').run(service.id, account, JSON.stringify(service));
}

const sql = (text) => db.prepare(text);
const findKey = sql('SELECT account, secret FROM keys WHERE id = ?');
const spend = sql('INSERT INTO nonces VALUES (?, ?, ?) ON CONFLICT DO NOTHING');
const readMeter = sql('SELECT level, at FROM meters WHERE key = ?');
const writeMeter = sql('INSERT INTO meters VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET level = excluded.level, at = excluded.at');
const touch = sql('UPDATE keys SET last_used = ? WHERE id = ?');
const readHead = sql('SELECT seq, hash FROM heads WHERE stream = ?');
const addAudit = sql('INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)');
const writeHead = sql('INSERT INTO heads VALUES (?, ?, ?) ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, hash = excluded.hash');
const findService = sql('SELECT body FROM services WHERE account = ? AND id = ?');
const findAnswer = sql('SELECT body_hash, status, body FROM idempotency WHERE key = ? AND name = ?');
const addAnswer = sql('INSERT INTO idempotency VALUES (?, ?, ?, ?, ?, ?)');
const addInvoice = sql("INSERT INTO invoices (account, status, total, issued, paid) VALUES (?, 'paid', ?, ?, ?)");
const addOrder = sql("INSERT INTO orders (account, product, cycle, total, invoice, status, created, due) VALUES (?, ?, ?, ?, ?, 'paid', ?, ?)");
const charge = sql('UPDATE accounts SET balance = balance - ? WHERE id = ? AND balance >= ?');
const addEntry = sql('INSERT INTO ledger (account, at, amount, reference) VALUES (?, ?, ?, ?)');

const sha256 = (data) => createHash('sha256').update(data);
const prefix = '/cp/kh_reseller_api';
let requests = 0;

function authenticate(request) {
  const { 'kh-key': id, 'kh-timestamp': timestamp, 'kh-nonce': nonce, 'kh-signature': signature } = request.headers;
  const now = Date.now();
  if (!/^kh_live_[A-Z0-9]{32}$/.test(id) || !/^[0-9]{10}$/.test(timestamp) || Math.abs(now / 1000 - Number(timestamp)) > 300) return null;
  if (!/^[A-Za-z0-9_-]{22,44}$/.test(nonce) || !/^[0-9a-f]{64}$/.test(signature)) return null;
  const key = findKey.get(id);
  if (!key) return null;
  const path = request.raw.url.slice(prefix.length);
  const signed = `${request.method}\n${path}\n${timestamp}\n${nonce}\n${sha256(request.body ?? '').digest('hex')}`;
  const expected = createHmac('sha256', key.secret).update(signed).digest();
  return timingSafeEqual(expected, Buffer.from(signature, 'hex')) ? { id, nonce, path, now, account: key.account } : null;
}

function admit({ id, nonce, now }) {
  if (spend.run(id, nonce, now + 601000).changes === 0) return false;
  const meter = readMeter.get(id) ?? { level: 1e6, at: now };
  const level = Math.min(1e6, meter.level + (now - meter.at) * 20) - 1;
  writeMeter.run(id, level, now);
  touch.run(now, id);
  return level >= 0;
}

function audit({ id, path, now, account }, request, status, requestId) {
  const head = readHead.get(account) ?? { seq: 0, hash: Buffer.alloc(32) };
  const row = [account, head.seq + 1, now, id, request.ip, request.method, path, status, requestId];
  const hash = sha256(head.hash).update(JSON.stringify(row)).digest();
  addAudit.run(...row, hash);
  writeHead.run(account, head.seq + 1, hash);
}

function place(caller, request) {
  const name = request.headers['idempotency-key'];
  const bodyHash = sha256(request.body).digest();
  const earlier = findAnswer.get(caller.id, name);
  if (earlier) return earlier.body_hash.equals(bodyHash) ? [earlier.status, earlier.body] : [409, '{}'];
  const { product_id: product, billing_cycle: cycle } = JSON.parse(request.body);
  const { now, account } = caller;
  if (charge.run(990, account, 990).changes === 0) return [402, '{}'];
  const invoice = addInvoice.run(account, 990, now, now).lastInsertRowid;
  const order = addOrder.run(account, product, cycle, 990, invoice, now, now + 1000).lastInsertRowid;
  addEntry.run(account, now, -990, String(invoice));
  const at = new Date(now).toISOString();
  const body = JSON.stringify({ id: order, status: 'paid', product_id: product, billing_cycle: cycle, total: { amount: '9.90', currency: 'EUR' },
    service_id: null, invoice_id: invoice, created_at: at, expires_at: null, paid_at: at });
  addAnswer.run(caller.id, name, bodyHash, 201, body, now + 86400000);
  return [201, body];
}

function answer(handle) {
  const work = db.transaction((caller, request, requestId) => {
    const [status, body] = admit(caller) ? handle(caller, request) : [401, '{}'];
    audit(caller, request, status, requestId);
    return [status, body];
  });
  return (request, reply) => {
    const caller = authenticate(request);
    if (!caller) return reply.code(401).send();
    const requestId = String(++requests).padStart(26, '0');
    const [status, body] = work.immediate(caller, request, requestId);
    reply.code(status).header('content-type', 'application/json').header('x-request-id', requestId).send(body);
  };
}

const app = Fastify({ logger: false });
app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => done(null, body));
app.get(`${prefix}/v1/services/:id`, answer((caller, request) => {
  const service = findService.get(caller.account, Number(request.params.id));
  return service ? [200, service.body] : [404, '{}'];
}));
app.post(`${prefix}/v1/orders`, answer(place));
await app.listen({ host: '127.0.0.1', port: 0 });
console.log(JSON.stringify({ server: `127.0.0.1:${app.server.address().port}` }));
