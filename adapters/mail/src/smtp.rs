//! Mail over SMTP: a connection per mail. Mails are few and far between, and a connection that is
//! kept is one that the server has closed by the time it is needed.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use lettre::transport::smtp::{
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, Certificate, TlsParameters},
    extension::ClientId,
};
use streamspace_common::config::MailConfig;
use streamspace_domain::mail::{Error, Mailer, Message};
use tokio::time::timeout;
use tracing::warn;

use crate::{Unusable, letter::Letters};

/// For a farewell that changes nothing.
const FAREWELL: Duration = Duration::from_secs(2);

/// What no key of the configuration says.
#[derive(Clone, Debug)]
pub struct Options {
    /// What this host is called in its greeting. Servers look at it: it should be a name that the
    /// world knows.
    pub name: Option<String>,
    /// Certificates in PEM that are trusted beside those that the machine trusts.
    pub trusted: Option<Vec<u8>>,
    /// The port where TLS begins with the first byte.
    pub at_once: u16,
    /// Until the server is reached and has let us in.
    pub to_connect: Duration,
    /// Until it has taken the mail.
    pub to_send: Duration,
}

impl Default for Options {
    /// Servers that suspect a robot let it wait for half a minute; those that look for spam take longer.
    fn default() -> Self {
        Self {
            name: None,
            trusted: None,
            at_once: 465,
            to_connect: Duration::from_secs(45),
            to_send: Duration::from_secs(120),
        }
    }
}

#[derive(Clone)]
enum Tls {
    Never,
    AfterGreeting(TlsParameters),
    AtOnce(TlsParameters),
}

/// Hands mail to one server.
pub struct Smtp {
    letters: Letters,
    host: String,
    port: u16,
    tls: Tls,
    login: Option<Credentials>,
    name: ClientId,
    to_connect: Duration,
    to_send: Duration,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Smtp {
    pub fn new(config: &MailConfig, options: Options) -> Result<Self, Unusable> {
        let host = config
            .host
            .clone()
            .ok_or_else(|| Unusable { key: "mail.host", message: "is missing".to_owned() })?;
        let tls = if config.tls {
            let parameters = tls_parameters(&host, options.trusted.as_deref()).map_err(|error| Unusable {
                key: "mail.tls",
                message: format!("the machine's certificates can't be used: {error}"),
            })?;
            if config.port == options.at_once {
                Tls::AtOnce(parameters)
            } else {
                Tls::AfterGreeting(parameters)
            }
        } else {
            Tls::Never
        };
        let login = config.username.clone().zip(config.password.as_ref());
        Ok(Self {
            letters: Letters::new(&config.from)?,
            host,
            port: config.port,
            tls,
            login: login.map(|(username, password)| Credentials::new(username, password.expose().clone())),
            name: options.name.map_or_else(ClientId::default, ClientId::Domain),
            to_connect: options.to_connect,
            to_send: options.to_send,
        })
    }

    /// Reaches the server; with `mail.tls` nothing but the greeting goes unencrypted.
    async fn connect(&self) -> Result<AsyncSmtpConnection, lettre::transport::smtp::Error> {
        let at_once = match &self.tls {
            Tls::AtOnce(parameters) => Some(parameters.clone()),
            Tls::AfterGreeting(_) | Tls::Never => None,
        };
        // A name may have several addresses, and the first may be dead.
        let an_address = self.to_connect / 3;
        let server = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(an_address), &self.name, at_once, None).await?;
        if let Tls::AfterGreeting(parameters) = &self.tls {
            connection.starttls(parameters.clone(), &self.name).await?;
        }
        if let Some(login) = &self.login {
            connection.auth(DEFAULT_MECHANISMS, login).await?;
        }
        Ok(connection)
    }
}

impl Mailer for Smtp {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let letter = self.letters.write(message)?;
            let silent = |limit| Error::Unavailable(format!("{} was silent for {limit:?}", self.host));
            let mut connection = timeout(self.to_connect, self.connect())
                .await
                .map_err(|_| silent(self.to_connect))?
                .map_err(|error| not_let_in(&error))?;
            timeout(self.to_send, connection.send(letter.envelope(), &letter.formatted()))
                .await
                .map_err(|_| silent(self.to_send))?
                .map_err(|error| not_taken(&error))?;
            // It is taken, whatever becomes of the connection.
            let _ = timeout(FAREWELL, connection.quit()).await;
            Ok(())
        }
        .boxed()
    }
}

fn tls_parameters(
    host: &str,
    trusted: Option<&[u8]>,
) -> Result<TlsParameters, lettre::transport::smtp::Error> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(pem) = trusted {
        builder = builder.add_root_certificate(Certificate::from_pem(pem)?);
    }
    builder.build()
}

/// Of the way to the server. A certificate, or encryption that is not offered, is refused by us and may
/// be mended; a login that the server refuses is not tried again, which would lock it.
fn not_let_in(error: &lettre::transport::smtp::Error) -> Error {
    warn!(error = %error, "the mail server does not let us in");
    match codes(error) {
        Some(codes) if error.is_permanent() => Error::Refused(codes),
        Some(codes) => Error::Unavailable(codes),
        None => Error::Unavailable(error.to_string()),
    }
}

/// Of a mail. The text of such an answer may quote the mail, and with it a link that is secret (filters
/// for spam do), so only the codes are told.
fn not_taken(error: &lettre::transport::smtp::Error) -> Error {
    match codes(error) {
        Some(codes) if error.is_permanent() => Error::Refused(codes),
        Some(codes) => Error::Unavailable(codes),
        None if error.is_client() => Error::Refused("the server takes no such address".to_owned()),
        None => Error::Unavailable("the connection broke off".to_owned()),
    }
}

/// Of the server's answer, if it gave one: `550 5.1.1`.
fn codes(error: &lettre::transport::smtp::Error) -> Option<String> {
    let status = error.status()?;
    Some(match enhanced_code(error) {
        Some(enhanced) => format!("{status} {enhanced}"),
        None => status.to_string(),
    })
}

/// RFC 3463's, `5.1.1`, with which the text of most answers begins.
fn enhanced_code(error: &lettre::transport::smtp::Error) -> Option<String> {
    let text = std::error::Error::source(error)?.to_string();
    let first = text.split_whitespace().next()?;
    let parts: Vec<&str> = first.split('.').collect();
    let digits = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    (parts.len() == 3 && parts.iter().all(digits)).then(|| first.to_owned())
}
