// The documented Node.js sample: node:crypto and JSON.stringify.
//
//   KH_KEY=.. KH_SECRET=.. KH_BASE=.. node kernelhost.mjs METHOD PATH [BODY [IDEMPOTENCY_KEY [TIMES]]]
//
// BODY is JSON; it is parsed and written again, as a caller with an object would. Prints status and body, a line each; sent TIMES
// times with the very same headers, so many pairs.
import crypto from 'node:crypto';

const [method, path, payload, idempotencyKey, times = '1'] = process.argv.slice(2);
const body = payload ? JSON.stringify(JSON.parse(payload)) : '';
const timestamp = Math.floor(Date.now() / 1000).toString();
const nonce = crypto.randomBytes(16).toString('hex');
const bodyHash = crypto.createHash('sha256').update(body).digest('hex');
const signingString = [method, path, timestamp, nonce, bodyHash].join('\n');
const signature = crypto.createHmac('sha256', process.env.KH_SECRET).update(signingString).digest('hex');

const headers = {
  'KH-Key': process.env.KH_KEY,
  'KH-Timestamp': timestamp,
  'KH-Nonce': nonce,
  'KH-Signature': signature,
  'Content-Type': 'application/json',
};
if (idempotencyKey) {
  headers['Idempotency-Key'] = idempotencyKey;
}

for (let sent = 0; sent < Number(times); sent++) {
  const answer = await fetch(process.env.KH_BASE + path, { method, headers, body: body || undefined });
  console.log(`${answer.status}\n${await answer.text()}`);
}
