// A receiver that trusts the official stripe package alone: it hands the raw body and our header to constructEvent.
//
//   SECRET=whsec_.. STRIPE=folder with the package node stripe.mjs
//
// Listens on a free port of loopback and prints it. For each POST it prints one line of JSON: what the package said, and the header and
// body as they came, and answers 200 or 400. It ends when its standard input does.
import http from 'node:http';
import { createRequire } from 'node:module';

const Stripe = createRequire(process.env.STRIPE + '/')('stripe');
const stripe = new Stripe('sk_test_unused');
const secret = process.env.SECRET;

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const raw = Buffer.concat(chunks);
    const header = request.headers['kh-webhook-signature'];
    const came = { header, body: raw.toString('base64') };
    try {
      const event = stripe.webhooks.constructEvent(raw, header, secret);
      console.log(JSON.stringify({ ok: true, id: event.id, type: event.type, ...came }));
      response.writeHead(200).end();
    } catch (error) {
      console.log(JSON.stringify({ ok: false, error: error.type, message: error.message, ...came }));
      response.writeHead(400).end();
    }
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
