use jiff::Timestamp;
use streamspace_common::{Secret, SignInId};

use crate::identity::{Tenant, User};

/// How a sign-in goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By refresh tokens: a program's.
    Tokens,
    /// By a cookie.
    Browser,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Browser => "browser",
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        if text == "browser" { Self::Browser } else { Self::Tokens }
    }
}

/// How a sign-in began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Password,
    Invitation,
    Registration,
    Oidc,
    /// A program that a browser's sign-in let in.
    Cli,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Invitation => "invitation",
            Self::Registration => "registration",
            Self::Oidc => "oidc",
            Self::Cli => "cli",
        }
    }

    /// Whether it shows what is guessed at: whoever has a browser's session could else guess at the second
    /// factor behind it for ever, and begin anew by another sign-in that takes no more than the session.
    pub(super) fn forgives(self) -> bool {
        matches!(self, Self::Password | Self::Invitation | Self::Registration)
    }

    pub(super) fn parse(text: &str) -> Self {
        [Self::Invitation, Self::Registration, Self::Oidc, Self::Cli]
            .into_iter()
            .find(|method| method.as_str() == text)
            .unwrap_or(Self::Password)
    }
}

/// With what somebody signs in.
#[derive(Clone, Debug)]
pub struct Client {
    pub kind: Kind,
    /// As it names itself.
    device: String,
}

const LONGEST_DEVICE: usize = 300;

impl Client {
    pub fn new(kind: Kind, device: &str) -> Self {
        let device = device.chars().filter(|c| !c.is_control()).take(LONGEST_DEVICE).collect();
        Self { kind, device }
    }

    pub(super) fn device(&self) -> &str {
        &self.device
    }
}

/// E-mail address and password, as somebody typed them.
#[derive(Clone, Debug)]
pub struct Login {
    pub email: String,
    pub password: Secret<String>,
    /// A slug.
    pub tenant: Option<String>,
}

/// What came of them.
#[derive(Debug)]
pub enum LoggedIn {
    In(Box<Welcome>),
    /// The password is right; now the second factor.
    SecondFactor(Challenge),
}

#[derive(Debug)]
pub struct Challenge {
    /// Shown once; the database has its hash.
    pub secret: Secret<String>,
    pub expires_in: std::time::Duration,
}

/// Somebody who is in.
#[derive(Debug)]
pub struct Welcome {
    pub user: User,
    pub tenant: Tenant,
    pub pass: Pass,
}

/// How they show it from now on. Each secret is shown once; the database has its hash.
#[derive(Debug)]
pub enum Pass {
    Tokens { access: Secret<String>, refresh: Secret<String> },
    Cookie(Secret<String>),
}

/// A sign-in that was just made, in a transaction that is not committed yet.
#[derive(Debug)]
pub struct Admitted {
    pub(super) id: SignInId,
    pub(super) user: User,
    pub(super) tenant: Tenant,
    pub(super) kind: Kind,
    pub(super) secret: Secret<String>,
}

/// One's sign-in, as one sees it in a list.
#[derive(Clone, Debug)]
pub struct SignIn {
    pub id: SignInId,
    pub kind: Kind,
    pub method: Method,
    pub device: String,
    pub address: Option<String>,
    pub created_at: Timestamp,
    pub last_used_at: Timestamp,
    pub expires_at: Timestamp,
}
