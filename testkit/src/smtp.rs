use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Process, Program, Scratch, eventually};

const SERVER: &str = include_str!("smtp.py");
const A_WHILE: Duration = Duration::from_secs(20);

/// How the server deals with encryption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SmtpTls {
    #[default]
    Never,
    /// By STARTTLS.
    Offered,
    /// From the first byte.
    AtOnce,
}

/// What the server does; by default it takes every mail from everyone.
#[derive(Debug, Clone, Default)]
pub struct SmtpOptions {
    pub tls: SmtpTls,
    /// Name and password without which it takes nothing.
    pub login: Option<(&'static str, &'static str)>,
    /// Said instead of taking a mail: the first of the first mail, and so on.
    pub answers: Vec<&'static str>,
    /// Lets everyone connect and never says a word.
    pub silent: bool,
}

/// A private SMTP server on a loopback port; what it takes becomes files.
#[derive(Debug)]
pub struct Smtp {
    port: u16,
    certificate: PathBuf,
    mails: PathBuf,
    process: Process,
    _scratch: Scratch,
}

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Received {
    /// The recipients of the envelope.
    pub to: Vec<String>,
    /// Decoded, as a person sees it.
    pub subject: String,
    pub text: String,
    /// Headers and body, as they came.
    pub raw: String,
    /// Who was signed in.
    pub login: Option<String>,
    /// Whether STARTTLS came before.
    pub after_starttls: bool,
}

impl Smtp {
    pub async fn start(options: SmtpOptions) -> Result<Self> {
        let scratch = Scratch::new("smtp")?;
        let path = |name: &str| scratch.path().join(name);
        let (certificate, key, mails) = (path("certificate.pem"), path("key.pem"), path("mails"));
        fs::create_dir(&mails).context("making a folder for mails")?;
        fs::write(path("smtp.py"), SERVER).context("writing the SMTP server")?;

        let tls = match options.tls {
            SmtpTls::Never => "never",
            SmtpTls::Offered => "offered",
            SmtpTls::AtOnce => "at-once",
        };
        // Debian's own: another one that comes first in the path knows nothing of Debian's packages.
        let python = ["/usr/bin/python3"].into_iter().find(|path| fs::exists(path).unwrap_or(false));
        let mut program = Program::new(python.unwrap_or("python3"))
            .named("smtp")
            .arg(path("smtp.py"))
            .arg("--into")
            .arg(&mails)
            .args(["--tls", tls]);
        if options.tls != SmtpTls::Never {
            make_certificate(&certificate, &key).await?;
            program = program.arg("--certificate").arg(&certificate).arg("--key").arg(&key);
        }
        if let Some((name, password)) = options.login {
            program = program.args(["--login", name, password]);
        }
        for answer in options.answers {
            program = program.args(["--answer", answer]);
        }
        if options.silent {
            program = program.arg("--silent");
        }
        let process = program.start()?;
        let port = listening(&process).await?;
        Ok(Self { port, certificate, mails, process, _scratch: scratch })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// In PEM; for the name `localhost` and no address, signed by itself.
    pub fn certificate(&self) -> Result<Vec<u8>> {
        fs::read(&self.certificate).context("reading the SMTP server's certificate")
    }

    /// What it has taken so far, oldest first.
    pub fn received(&self) -> Result<Vec<Received>> {
        let mut names: Vec<PathBuf> = fs::read_dir(&self.mails)?
            .map(|entry| Ok(entry?.path()))
            .filter(|path: &Result<PathBuf>| path.as_ref().is_ok_and(|path| is_complete(path)))
            .collect::<Result<_>>()?;
        names.sort();
        names.iter().map(|path| read(path)).collect()
    }

    /// Waits for the `n`th mail to an address (1 is the first).
    ///
    /// # Panics
    /// When it has not come at the deadline.
    pub async fn mail(&self, n: usize, to: &str, deadline: Duration) -> Received {
        eventually(deadline, format_args!("mail {n} to {to}"), async || {
            let received = self.received().expect("its folder can be read");
            received.into_iter().filter(|mail| mail.to == [to]).nth(n - 1)
        })
        .await
    }

    pub async fn kill(&self) {
        self.process.kill9().await;
    }
}

fn is_complete(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "eml")
}

fn read(path: &Path) -> Result<Received> {
    let part = |name: &str| fs::read_to_string(path.with_extension(name)).context("reading a mail");
    let login = part("login")?;
    Ok(Received {
        to: part("to")?.lines().map(str::to_owned).collect(),
        subject: part("subject")?,
        text: part("text")?,
        raw: part("eml")?,
        login: (!login.is_empty()).then_some(login),
        after_starttls: !part("tls")?.is_empty(),
    })
}

async fn make_certificate(certificate: &Path, key: &Path) -> Result<()> {
    let openssl = Program::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate);
    let (status, output) = openssl.run(A_WHILE).await?;
    if !status.success() {
        bail!("openssl made no certificate:\n{output}");
    }
    Ok(())
}

async fn listening(process: &Process) -> Result<u16> {
    for _ in 0..4000 {
        let output = process.output();
        let port = output.lines().find_map(|line| line.strip_prefix("listening on "));
        if let Some(port) = port {
            return port.parse().context("a port");
        }
        if process.status().is_some() {
            bail!("the SMTP server ended (Debian package `python3-aiosmtpd`):\n{}", process.output());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("the SMTP server is not ready:\n{}", process.output())
}
