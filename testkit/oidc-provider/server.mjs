// A certified provider. Whoever comes is signed in as their `login_hint`, without a page.
//
// Settings: `clients` (as registered), `users` {id: claims}, `claimsIn` ("token", or "userinfo" alone),
// `alg`, `key` (another number is another key), `authMethods` (how clients prove themselves).
import { generateKeyPairSync } from 'node:crypto';
import { Provider } from 'oidc-provider';
import { serve, settings } from './serve.mjs';

const KINDS = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  ES384: ['ec', { namedCurve: 'P-384' }],
  EdDSA: ['ed25519', {}],
};

let signing;

/// One key at a time: who rotates takes the old one away at once.
function key() {
  const { alg = 'RS256', key: number = 1 } = settings;
  const kid = `${alg}-${number}`;
  if (signing?.kid !== kid) {
    const [kind, options] = KINDS[alg];
    const { privateKey } = generateKeyPairSync(kind, options);
    signing = { ...privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' };
  }
  return signing;
}

await serve((issuer) => {
  const { clients = [], users = {}, claimsIn = 'token', alg = 'RS256' } = settings;
  const { authMethods = ['client_secret_basic', 'client_secret_post'] } = settings;
  const provider = new Provider(issuer, {
    clients: clients.map((client) => ({
      token_endpoint_auth_method: authMethods[0],
      id_token_signed_response_alg: alg,
      ...client,
    })),
    clientAuthMethods: authMethods,
    jwks: { keys: [key()] },
    enabledJWA: { idTokenSigningAlgValues: [alg] },
    cookies: { keys: ['of a test'] },
    scopes: ['openid', 'email', 'profile', 'groups'],
    claims: {
      openid: ['sub'],
      email: ['email', 'email_verified'],
      profile: ['name', 'preferred_username', 'organisation'],
      groups: ['groups'],
    },
    conformIdTokenClaims: claimsIn === 'userinfo',
    features: { devInteractions: { enabled: false } },
    pkce: { required: () => true },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_ctx, id) => users[id] && { accountId: id, claims: () => ({ sub: id, ...users[id] }) },
    // Consent was given: nobody asks.
    async loadExistingGrant({ oidc }) {
      const { clientId } = oidc.client;
      const given = oidc.session.grantIdFor(clientId);
      if (given) return oidc.provider.Grant.find(given);
      const grant = new oidc.provider.Grant({ clientId, accountId: oidc.session.accountId });
      grant.addOIDCScope('openid email profile groups');
      await grant.save();
      return grant;
    },
  });
  for (const event of ['authorization.error', 'grant.error', 'userinfo.error', 'server_error']) {
    provider.on(event, (_ctx, error) => console.error(event, error.error_detail ?? error));
  }
  const answer = provider.callback();
  return async (request, response) => {
    if (!request.url.startsWith('/interaction/')) return answer(request, response);
    const { params } = await provider.interactionDetails(request, response);
    const known = users[params.login_hint];
    const result = known
      ? { login: { accountId: params.login_hint } }
      : { error: 'access_denied', error_description: 'nobody of this name' };
    return provider.interactionFinished(request, response, result);
  };
});
