// The peer of the benchmark: the same checks, the same rows and columns, each request one durable transaction. Where one process needs no
// more it does less: it verifies no card, has no webhooks to tell and sweeps nothing. Arguments: the database's path, and a JSON file
// with the resellers.
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Database from 'better-sqlite3';
import Fastify from 'fastify';

const [path, file] = process.argv.slice(2);
const db = new Database(path);
db.pragma('journal_mode = WAL');
db.pragma('synchronous = FULL');
db.exec(`
  CREATE TABLE accounts (id INTEGER PRIMARY KEY, currency TEXT NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0), closed_at INTEGER);
  CREATE TABLE keys (id TEXT PRIMARY KEY, account INTEGER NOT NULL, secret TEXT NOT NULL, scopes TEXT NOT NULL, expires_at INTEGER,
    revoked_at INTEGER) WITHOUT ROWID;
  CREATE TABLE locks (key TEXT NOT NULL, network TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (key, network)) WITHOUT ROWID;
  CREATE TABLE nonces (key TEXT NOT NULL, nonce TEXT NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (key, nonce)) WITHOUT ROWID;
  CREATE TABLE meters (key TEXT PRIMARY KEY, level INTEGER NOT NULL, at INTEGER NOT NULL, day INTEGER NOT NULL, day_count INTEGER NOT NULL,
    last_used INTEGER) WITHOUT ROWID;
  CREATE TABLE webhooks (key TEXT PRIMARY KEY, account INTEGER NOT NULL, url TEXT NOT NULL, disabled_at INTEGER);
  CREATE INDEX webhooks_account ON webhooks (account);
  CREATE TABLE services (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, body TEXT NOT NULL);
  CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, stock INTEGER, config_options TEXT NOT NULL);
  CREATE TABLE prices (product INTEGER NOT NULL, currency TEXT NOT NULL, cycle TEXT NOT NULL, price INTEGER NOT NULL, setup_fee INTEGER NOT NULL,
    PRIMARY KEY (product, currency, cycle)) WITHOUT ROWID;
  CREATE TABLE invoices (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, status TEXT NOT NULL, total INTEGER NOT NULL, tax INTEGER NOT NULL,
    tax_basis_points INTEGER NOT NULL, currency TEXT NOT NULL, lines TEXT NOT NULL, seller TEXT NOT NULL, order_id INTEGER,
    renews_service INTEGER, renews_from INTEGER, issued INTEGER NOT NULL, due INTEGER NOT NULL, paid INTEGER);
  CREATE INDEX invoices_account ON invoices (account);
  CREATE UNIQUE INDEX invoices_renewal ON invoices (renews_service, renews_from) WHERE renews_service IS NOT NULL;
  CREATE TABLE orders (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, product INTEGER NOT NULL, cycle TEXT NOT NULL, quantity INTEGER NOT NULL,
    config_options TEXT NOT NULL, hostname TEXT, note TEXT, total INTEGER NOT NULL, recurring INTEGER NOT NULL, currency TEXT NOT NULL,
    invoice INTEGER NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL, status TEXT NOT NULL, service INTEGER, paid INTEGER,
    due INTEGER);
  CREATE INDEX orders_due ON orders (due) WHERE due IS NOT NULL;
  CREATE INDEX orders_pending ON orders (account, id) WHERE status = 'pending_payment';
  CREATE TABLE ledger (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, at INTEGER NOT NULL, amount INTEGER NOT NULL, kind TEXT NOT NULL,
    reference TEXT NOT NULL);
  CREATE TABLE idempotency (key TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL, body_hash BLOB NOT NULL,
    status INTEGER NOT NULL, headers TEXT NOT NULL, body TEXT NOT NULL, unfinished_order INTEGER, at INTEGER NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY (key, method, path, name));
  CREATE TABLE audit (stream INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, account INTEGER, key TEXT, peer TEXT, method TEXT,
    path TEXT, status INTEGER, reason TEXT, request TEXT, event TEXT NOT NULL, detail TEXT, hash BLOB NOT NULL, UNIQUE (stream, seq));
  CREATE TABLE heads (stream INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL);
`);
const scopes = 'read:products read:orders read:services read:billing read:webhooks write:orders write:services';
for (const { key, secret, account, service } of JSON.parse(readFileSync(file, 'utf8'))) {
  db.prepare("INSERT INTO accounts VALUES (?, 'EUR', 1000000000000, NULL)").run(account);
  db.prepare('INSERT INTO keys VALUES (?, ?, ?, ?, NULL, NULL)').run(key, account, secret, scopes);
  db.prepare('INSERT INTO services VALUES (?, ?, ?)').run(service.id, account, JSON.stringify(service));
}
const options = [{ name: 'ram', type: 'select', choices: [{ value: '4', label: '4 GB' }, { value: '8', label: '8 GB', prices: { EUR: '2.00' } }] }];
db.prepare("INSERT INTO products VALUES (42, 'KVM S', NULL, ?)").run(JSON.stringify(options));
db.prepare("INSERT INTO prices VALUES (42, 'EUR', 'monthly', 990, 0), (42, 'EUR', 'annually', 9900, 0)").run();

const sql = (text) => db.prepare(text);
const findKey = sql('SELECT account, secret, scopes, expires_at, revoked_at FROM keys WHERE id = ?');
const findLocks = sql('SELECT network FROM locks WHERE key = ? AND until > ?');
const spend = sql('INSERT INTO nonces VALUES (?, ?, ?) ON CONFLICT DO NOTHING');
const readMeter = sql('SELECT level, at, day, day_count FROM meters WHERE key = ?');
const writeMeter = sql(`INSERT INTO meters VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET level = excluded.level, at = excluded.at,
  day = excluded.day, day_count = excluded.day_count, last_used = excluded.last_used`);
const readHead = sql('SELECT seq, hash FROM heads WHERE stream = ?');
const addAudit = sql('INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)');
const writeHead = sql('INSERT INTO heads VALUES (?, ?, ?) ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, hash = excluded.hash');
const findService = sql('SELECT body FROM services WHERE account = ? AND id = ?');
const findAccount = sql(`SELECT currency, balance, closed_at, (SELECT MIN(key) FROM webhooks WHERE account = accounts.id AND disabled_at IS NULL) AS webhook
  FROM accounts WHERE id = ?`);
const findProduct = sql('SELECT name, stock, config_options FROM products WHERE id = ?');
const findPrice = sql('SELECT price, setup_fee FROM prices WHERE product = ? AND currency = ? AND cycle = ?');
const findAnswer = sql('SELECT body_hash, status, headers, body FROM idempotency WHERE key = ? AND method = ? AND path = ? AND name = ? AND expires > ?');
const addAnswer = sql('INSERT INTO idempotency VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)');
const addInvoice = sql(`INSERT INTO invoices (account, status, total, tax, tax_basis_points, currency, lines, seller, issued, due, paid)
  VALUES (?, 'paid', ?, ?, ?, ?, ?, ?, ?, ?, ?)`);
const setOrder = sql('UPDATE invoices SET order_id = ? WHERE account = ? AND id = ?');
const addOrder = sql(`INSERT INTO orders (account, product, cycle, quantity, config_options, hostname, note, total, recurring, currency, invoice, created,
  expires, status, paid, due) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'paid', ?, ?)`);
const charge = sql('UPDATE accounts SET balance = balance - ? WHERE id = ? AND balance >= ?');
const addEntry = sql("INSERT INTO ledger (account, at, amount, kind, reference) VALUES (?, ?, ?, 'order', ?)");

const sha256 = (data) => createHash('sha256').update(data);
const prefix = '/cp/kh_reseller_api';
const [perMinute, burst, perDay] = [1000000, 1000000, 1000000000];
const members = new Set(['product_id', 'billing_cycle', 'quantity', 'config_options', 'hostname', 'note']);
const day = 86400000;
const [seller, taxBasisPoints] = ['', 0];

// As ours: 26 characters, the time first.
function requestId(now) {
  return now.toString(32).padStart(10, '0').toUpperCase() + randomBytes(10).toString('hex').slice(0, 16).toUpperCase();
}

function authenticate(request) {
  const { 'kh-key': id, 'kh-timestamp': timestamp, 'kh-nonce': nonce, 'kh-signature': signature } = request.headers;
  const now = Date.now();
  if (!/^kh_live_[A-Z0-9]{32}$/.test(id) || !/^[0-9]{10}$/.test(timestamp) || Math.abs(now / 1000 - Number(timestamp)) > 300) return null;
  if (!/^[A-Za-z0-9_-]{22,44}$/.test(nonce) || !/^[0-9a-f]{64}$/.test(signature)) return null;
  const key = findKey.get(id);
  if (!key || key.revoked_at !== null || (key.expires_at !== null && key.expires_at <= now)) return null;
  const path = request.raw.url.slice(prefix.length);
  const signed = `${request.method}\n${path}\n${timestamp}\n${nonce}\n${sha256(request.body ?? '').digest('hex')}`;
  const expected = createHmac('sha256', key.secret).update(signed).digest();
  if (!timingSafeEqual(expected, Buffer.from(signature, 'hex'))) return null;
  return { id, nonce, path, now, account: key.account, scopes: key.scopes };
}

function admit({ id, nonce, now }) {
  if (findLocks.all(id, now).length > 0) return null;
  if (spend.run(id, nonce, now + 601000).changes === 0) return null;
  const today = Math.floor(now / day);
  const meter = readMeter.get(id) ?? { level: burst, at: now, day: today, day_count: 0 };
  const count = (meter.day === today ? meter.day_count : 0) + 1;
  const level = Math.min(burst, meter.level + ((now - meter.at) * perMinute) / 60000) - 1;
  if (level < 0 || count > perDay) return null;
  writeMeter.run(id, level, now, today, count, now);
  return { remaining: Math.floor(level), reset: Math.floor(now / 1000) + Math.ceil(((burst - level) * 60) / perMinute) };
}

function audit({ id, path, now, account }, request, status, name) {
  const head = readHead.get(account) ?? { seq: 0, hash: Buffer.alloc(32) };
  const row = [account, head.seq + 1, now, account, id, request.ip, request.method, path, status, null, name, 'request', null];
  const hash = sha256(head.hash).update(JSON.stringify(row)).digest();
  addAudit.run(...row, hash);
  writeHead.run(account, head.seq + 1, hash);
}

// What an order costs, or null.
function price(body, product, found) {
  const { quantity = 1, hostname, note, config_options: chosen = {} } = body;
  if (!Number.isInteger(quantity) || quantity < 1 || quantity > 100 || (product.stock !== null && product.stock < quantity)) return null;
  if (hostname !== undefined && !/^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i.test(hostname)) return null;
  if (note !== undefined && (note.length > 500 || /\p{Cc}/u.test(note))) return null;
  const options = JSON.parse(product.config_options);
  if (Object.keys(chosen).some((name) => !options.some((option) => option.name === name))) return null;
  let each = found.price;
  for (const option of options) {
    if (chosen[option.name] === undefined) continue;
    const choice = option.choices.find(({ value }) => value === chosen[option.name]);
    if (!choice) return null;
    each += Math.round(Number(choice.prices?.EUR ?? 0) * 100);
  }
  return { quantity, recurring: each * quantity, total: (each + found.setup_fee) * quantity };
}

function place(caller, request) {
  const name = request.headers['idempotency-key'];
  if (!/^[A-Za-z0-9_.-]{1,80}$/.test(name)) return [400, '{}'];
  const bodyHash = sha256(request.body).digest();
  const { now, account, id: key, path } = caller;
  const earlier = findAnswer.get(key, 'POST', path, name, now);
  if (earlier) return earlier.body_hash.equals(bodyHash) ? [earlier.status, earlier.body] : [409, '{}'];
  const profile = findAccount.get(account);
  if (profile.closed_at !== null) return [403, '{}'];
  const order = JSON.parse(request.body);
  const { product_id: product, billing_cycle: cycle } = order;
  if (!Number.isInteger(product) || typeof cycle !== 'string' || Object.keys(order).some((member) => !members.has(member))) return [422, '{}'];
  const ware = findProduct.get(product);
  const found = ware && findPrice.get(product, profile.currency, cycle);
  const cost = found && price(order, ware, found);
  if (!cost) return [422, '{}'];
  if (profile.balance < cost.total || charge.run(cost.total, account, cost.total).changes === 0) return [402, '{}'];
  const lines = JSON.stringify([[`${ware.name}, ${cycle}`, cost.quantity, cost.recurring / cost.quantity]]);
  const tax = Math.round((cost.total * taxBasisPoints) / (10000 + taxBasisPoints));
  const invoice = addInvoice.run(account, cost.total, tax, taxBasisPoints, profile.currency, lines, seller, now, now + day, now).lastInsertRowid;
  addEntry.run(account, now, -cost.total, String(invoice));
  const chosen = JSON.stringify(order.config_options ?? {});
  const id = addOrder.run(account, product, cycle, cost.quantity, chosen, order.hostname?.toLowerCase() ?? null, order.note ?? null, cost.total,
    cost.recurring, profile.currency, invoice, now, now + day, now, now + 1000).lastInsertRowid;
  setOrder.run(id, account, invoice);
  const at = new Date(now).toISOString().replace(/\.[0-9]+/, '');
  const amount = (cost.total / 100).toFixed(2);
  const body = JSON.stringify({ id, status: 'paid', product_id: product, billing_cycle: cycle, total: { amount, currency: profile.currency },
    service_id: null, invoice_id: invoice, created_at: at, expires_at: null, paid_at: at });
  addAnswer.run(key, 'POST', path, name, bodyHash, 201, 'content-type: application/json\n', body, now, now + day);
  return [201, body];
}

function answer(scope, handle) {
  const work = db.transaction((caller, request, name) => {
    const reading = admit(caller);
    const [status, body] = !reading ? [401, '{}'] : caller.scopes.split(' ').includes(scope) ? handle(caller, request) : [403, '{}'];
    audit(caller, request, status, name);
    return [status, body, reading];
  });
  return (request, reply) => {
    const caller = authenticate(request);
    if (!caller) return reply.code(401).send();
    const name = requestId(caller.now);
    const [status, body, reading] = work.immediate(caller, request, name);
    reply.code(status).header('content-type', 'application/json').header('x-request-id', name);
    reply.header('x-ratelimit-remaining', reading?.remaining).header('x-ratelimit-reset', reading?.reset).send(body);
  };
}

const app = Fastify({ logger: false, bodyLimit: 65536 });
app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => done(null, body));
app.get(`${prefix}/v1/services/:id`, answer('read:services', (caller, request) => {
  const service = findService.get(caller.account, Number(request.params.id));
  return service ? [200, service.body] : [404, '{}'];
}));
app.post(`${prefix}/v1/orders`, answer('write:orders', place));
await app.listen({ host: '127.0.0.1', port: 0 });
console.log(JSON.stringify({ server: `127.0.0.1:${app.server.address().port}` }));
