// A provider that says what the test tells it to, true or not. It signs in everyone at once.
//
// Settings: `clientId`, `clientSecret`; `document`, `claims`, `header`, `userinfo`, `token` (members
// that replace true ones, null removes); `sign` ("published", "unknown" key, "secret" of the client,
// "nothing"); `slow`, `huge`, `redirect`, `status`, `delay` (in ms), each a list of paths or a map of them.
import { createHmac, generateKeyPairSync } from 'node:crypto';
import { CompactSign, exportJWK } from 'jose';
import { answer, body, serve, settings } from './serve.mjs';

const KID = 'published';
const published = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const unknown = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const begun = new Map();

const changed = (truth, lies = {}) =>
  Object.fromEntries(Object.entries({ ...truth, ...lies }).filter(([, value]) => value !== null));

const encoded = (json) => Buffer.from(JSON.stringify(json)).toString('base64url');

async function signed(claims) {
  const { sign = 'published', clientSecret } = settings;
  const algs = { published: 'ES256', unknown: 'ES256', secret: 'HS256', nothing: 'none' };
  const header = changed({ alg: algs[sign], kid: KID, typ: 'JWT' }, settings.header);
  const text = `${encoded(header)}.${encoded(claims)}`;
  if (sign === 'nothing') return `${text}.`;
  if (sign === 'secret') return `${text}.${createHmac('sha256', clientSecret).update(text).digest('base64url')}`;
  const { privateKey } = sign === 'unknown' ? unknown : published;
  return new CompactSign(Buffer.from(JSON.stringify(claims))).setProtectedHeader(header).sign(privateKey);
}

await serve((issuer) => async (request, response) => {
  const { pathname: path, searchParams: query } = new URL(request.url, issuer);
  if (settings.slow?.includes(path)) return; // never answered
  if (settings.delay?.[path]) await new Promise((over) => setTimeout(over, settings.delay[path]));
  if (settings.redirect?.[path]) {
    response.writeHead(307, { location: settings.redirect[path] });
    return response.end();
  }
  if (settings.huge?.includes(path)) {
    response.writeHead(200, { 'content-type': 'application/json' });
    const mebibyte = Buffer.alloc(1 << 20, ' ');
    // As long as somebody reads.
    while (!response.destroyed) {
      if (!response.write(mebibyte)) await new Promise((drained) => response.once('drain', drained).once('close', drained));
    }
    return;
  }
  if (settings.status?.[path]) return answer(response, settings.status[path], { error: 'invalid_grant' });

  const now = Math.floor(Date.now() / 1000);
  switch (path) {
    case '/.well-known/openid-configuration': {
      const document = {
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        userinfo_endpoint: `${issuer}/userinfo`,
        jwks_uri: `${issuer}/jwks`,
        response_types_supported: ['code'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['ES256'],
      };
      return answer(response, 200, changed(document, settings.document));
    }
    case '/jwks': {
      const key = { ...(await exportJWK(published.publicKey)), kid: KID, alg: 'ES256', use: 'sig' };
      return answer(response, 200, { keys: [key] });
    }
    case '/authorize': {
      const code = `code-${begun.size}`;
      begun.set(code, query.get('nonce'));
      const back = new URL(query.get('redirect_uri'));
      back.searchParams.set('code', code);
      back.searchParams.set('state', query.get('state'));
      response.writeHead(303, { location: back });
      return response.end();
    }
    case '/token': {
      const nonce = begun.get(new URLSearchParams(await body(request)).get('code'));
      const truth = {
        iss: issuer,
        sub: 'mallory',
        aud: settings.clientId,
        iat: now,
        exp: now + 300,
        nonce,
        email: 'mallory@example.org',
        email_verified: true,
        preferred_username: 'mallory',
      };
      const idToken = await signed(changed(truth, settings.claims));
      const token = { access_token: 'access', token_type: 'Bearer', expires_in: 300, id_token: idToken };
      return answer(response, 200, changed(token, settings.token));
    }
    case '/userinfo':
      return answer(response, 200, changed({ sub: 'mallory' }, settings.userinfo));
    default:
      return answer(response, 404, {});
  }
});
