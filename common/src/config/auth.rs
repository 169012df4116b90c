//! Signing in.

use std::time::Duration;

use super::{oidc::OidcProviders, section::section};

section! {
    /// Signing in.
    "auth" => AuthConfig {
        /// How long an access token works: between `1m` and `12h`.
        access_token_ttl: Duration = Duration::from_secs(30 * 60);
        /// How long a sign-in goes on that nobody uses: of refresh tokens, and of a browser's cookie.
        refresh_token_ttl: Duration = Duration::from_secs(7 * 24 * 3600);
        /// Failures that close an account for a while; of an address that has any four times as many.
        lockout_failures: u32 = 5;
        /// How long the first time; every time after it is twice as long, up to `24h`.
        lockout_duration: Duration = Duration::from_secs(15 * 60);
        /// Memory that hashing a password takes.
        argon2_memory_kib: u32 = 19_456;
        /// Rounds over that memory.
        argon2_iterations: u32 = 2;
        /// Lanes of it.
        argon2_parallelism: u32 = 1;
        /// Whether signing in takes a second factor, in tenants whose administrators have not said.
        mfa_required: bool = false;
        /// Identity providers of the whole installation, a table each: see [identity providers](identity-providers.md). Tenants set up their own through the API.
        oidc: OidcProviders = OidcProviders::default();
    }
}
