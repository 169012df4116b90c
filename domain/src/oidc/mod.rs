//! Signing in through an identity provider (OpenID Connect): the code flow with PKCE, state and nonce.

mod claims;
mod discovery;
mod error;
mod id_token;
mod port;

pub use self::{
    claims::Claims,
    discovery::{Discovery, Login, document_url, is_confidential, is_provider_url},
    error::{Unanswered, Untrue},
    id_token::{Expected, verify},
    port::{Age, Grant, IdentityProviders, Tokens},
};
