/// What a provider said that cannot be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    #[error("its discovery document cannot be read")]
    Document,
    #[error("its discovery document names another issuer than the provider's URL")]
    OtherIssuer,
    #[error("its discovery document names an endpoint that is not https")]
    Endpoint,
    #[error("the ID token is no signed token")]
    Token,
    #[error("the ID token is signed by an algorithm that the provider does not announce, or none")]
    Algorithm,
    #[error("the ID token is signed by a key that the provider does not publish")]
    UnknownKey,
    #[error("the signature of the ID token is wrong")]
    Signature,
    #[error("the ID token is from another issuer")]
    Issuer,
    #[error("the ID token is for another client")]
    Audience,
    #[error("the ID token has expired")]
    Expired,
    #[error("the ID token is from the future")]
    Early,
    #[error("the ID token belongs to another sign-in")]
    Nonce,
    #[error("the ID token belongs to another access token")]
    AccessToken,
    #[error("the ID token names nobody")]
    Subject,
    #[error("its user information is about somebody else")]
    OtherSubject,
}

/// Why a provider gave no answer that can be used. Nothing of an answer's text is in it but the
/// standard's short codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("its address is private; security.allowed_cidrs names those that may be reached")]
    Private,
    #[error("its answer is larger than 1 MiB")]
    TooLarge,
    #[error("it answers with the status {0}")]
    Status(u16),
    /// OAuth's own word for it, such as `invalid_client`.
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("its answer cannot be read")]
    Unreadable,
    #[error(transparent)]
    Untrue(#[from] Untrue),
}
