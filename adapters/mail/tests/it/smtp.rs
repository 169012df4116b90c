use std::time::{Duration, Instant};

use streamspace_common::{Classified, config::MailConfig};
use streamspace_domain::mail::{Error, Mailer, Message};
use streamspace_mail::{Options, Smtp};
use streamspace_testkit::{Smtp as Server, SmtpOptions, SmtpTls};

const SOON: Duration = Duration::from_secs(20);
const LINK: &str = "https://example.org/reset#token=Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4";

fn config(server: &Server) -> MailConfig {
    MailConfig {
        host: Some("localhost".to_owned()),
        port: server.port(),
        from: streamspace_common::config::Sender {
            name: Some("Acme, Söhne".to_owned()),
            address: "noreply@example.org".to_owned(),
        },
        tls: false,
        ..MailConfig::default()
    }
}

fn encrypted(server: &Server) -> (MailConfig, Options) {
    let trusted = Some(server.certificate().expect("a certificate"));
    (MailConfig { tls: true, ..config(server) }, Options { trusted, ..Options::default() })
}

fn message(to: &str) -> Message {
    Message { to: to.to_owned(), subject: "Grüße".to_owned(), text: format!("Hello\n\n{LINK}\n").into() }
}

async fn send(config: &MailConfig, options: Options) -> Result<(), Error> {
    Smtp::new(config, options).expect("usable").send(&message("ada@example.org")).await
}

fn is_transient(error: &Error) -> bool {
    error.kind().is_transient()
}

#[tokio::test]
async fn mail_arrives_encrypted_from_who_has_signed_in() {
    let login = Some(("streamspace", "correct horse"));
    let server = Server::start(SmtpOptions { tls: SmtpTls::Offered, login, ..SmtpOptions::default() })
        .await
        .expect("up");
    let (config, options) = encrypted(&server);
    let config = MailConfig {
        username: Some("streamspace".to_owned()),
        password: Some("correct horse".into()),
        ..config
    };
    let options = Options { name: Some("streamspace.example.org".to_owned()), ..options };
    send(&config, options.clone()).await.expect("sent");
    let mail = server.mail(1, "ada@example.org", SOON).await;
    assert_eq!((mail.subject.as_str(), mail.login.as_deref()), ("Grüße", Some("streamspace")));
    assert_eq!(mail.text.trim_end().lines().collect::<Vec<_>>(), ["Hello", "", LINK]);
    assert!(mail.after_starttls);
    for header in ["Auto-Submitted: auto-generated", "Message-ID: <", "Date: ", "@example.org>"] {
        assert!(mail.raw.contains(header), "no {header}: {}", mail.raw);
    }

    let wrong = MailConfig { password: Some("hunter2hunter2".into()), ..config.clone() };
    let refused = send(&wrong, options.clone()).await.expect_err("refused");
    assert!(!is_transient(&refused), "repeating it would lock the login: {refused}");
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
    let nobody = MailConfig { username: None, password: None, ..config };
    assert!(send(&nobody, options).await.is_err());
    assert_eq!(server.received().expect("mails").len(), 1);
}

#[tokio::test]
async fn encryption_may_begin_with_the_first_byte() {
    let server =
        Server::start(SmtpOptions { tls: SmtpTls::AtOnce, ..SmtpOptions::default() }).await.expect("up");
    let (config, options) = encrypted(&server);
    send(&config, Options { at_once: server.port(), ..options.clone() }).await.expect("sent");
    let hasty = Options { to_connect: Duration::from_millis(300), ..options };
    send(&config, hasty).await.expect_err("each waits for the other");
    assert_eq!(server.received().expect("mails").len(), 1);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    for tls in [SmtpTls::Offered, SmtpTls::AtOnce] {
        let server = Server::start(SmtpOptions { tls, ..SmtpOptions::default() }).await.expect("up");
        let (config, options) = encrypted(&server);
        let at_once = if tls == SmtpTls::AtOnce { server.port() } else { 0 };
        let options = Options { at_once, ..options };
        let stranger = Options { trusted: None, ..options.clone() };
        let refused = send(&config, stranger).await.expect_err("refused");
        assert!(refused.to_string().contains("certificate"), "{refused}");
        assert!(is_transient(&refused), "it may be renewed");
        // Trusted, and for another name.
        let by_address = MailConfig { host: Some("127.0.0.1".to_owned()), ..config };
        let refused = send(&by_address, options).await.expect_err("refused");
        assert!(refused.to_string().contains("certificate"), "{refused}");
        assert_eq!(server.received().expect("mails").len(), 0);
    }
}

#[tokio::test]
async fn mail_that_would_leave_unencrypted_stays() {
    let server = Server::start(SmtpOptions::default()).await.expect("up");
    let config = config(&server);
    send(&config, Options::default()).await.expect("allowed");
    assert_eq!(server.received().expect("mails").len(), 1);
    let refused = send(&MailConfig { tls: true, ..config }, Options::default()).await.expect_err("refused");
    assert!(refused.to_string().contains("STARTTLS"), "{refused}");
    assert_eq!(server.received().expect("mails").len(), 1);
}

#[tokio::test]
async fn what_the_server_says_decides_whether_trying_again_helps() {
    let answers = vec![
        "451 4.7.1 greylisted",
        "421 closing down",
        "554 5.7.1 we block https://example.org/reset#token=Zm9vYmFy",
        "550 no",
    ];
    let server = Server::start(SmtpOptions { answers, ..SmtpOptions::default() }).await.expect("up");
    let config = config(&server);
    let mut told = Vec::new();
    for _ in 0..4 {
        let error = send(&config, Options::default()).await.expect_err("not taken");
        told.push((error.to_string(), is_transient(&error)));
    }
    let later = "mail could not be handed over: ";
    let never = "mail was refused: ";
    let expected = [
        (format!("{later}451 4.7.1"), true),
        (format!("{later}421"), true),
        (format!("{never}554 5.7.1"), false),
        (format!("{never}550"), false),
    ];
    assert_eq!(told, expected);
    send(&config, Options::default()).await.expect("taken at last");
    assert_eq!(server.received().expect("mails").len(), 1);
}

#[tokio::test]
async fn a_server_that_is_away_or_silent_is_tried_later() {
    let server = Server::start(SmtpOptions { silent: true, ..SmtpOptions::default() }).await.expect("up");
    let config = config(&server);
    let start = Instant::now();
    let hasty = || Options { to_connect: Duration::from_millis(300), ..Options::default() };
    let silent = send(&config, hasty()).await.expect_err("silence");
    assert!(is_transient(&silent) && silent.to_string().contains("silent"), "{silent}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    server.kill().await;
    let away = send(&config, hasty()).await.expect_err("nobody there");
    assert!(is_transient(&away), "{away}");
}

#[tokio::test]
async fn nothing_that_is_typed_becomes_a_header_or_a_recipient() {
    let server = Server::start(SmtpOptions::default()).await.expect("up");
    let smtp = Smtp::new(&config(&server), Options::default()).expect("usable");
    for to in [
        "ada@example.org\r\nBcc: eve@example.org",
        "ada@example.org, eve@example.org",
        "ada@example.org> SIZE=1\r\nRCPT TO:<eve@example.org",
        "\"ada\r\nBcc: eve@example.org\"@example.org",
        "Ada <ada@example.org>",
        "ada@example.org\nBcc: eve@example.org",
        "",
    ] {
        let refused = smtp.send(&message(to)).await.expect_err(to);
        assert!(!is_transient(&refused), "{to:?}: {refused}");
    }
    let message = Message {
        subject: "Hello\r\nBcc: eve@example.org\r\n\r\nbody\0".to_owned(),
        text: "one\r\n.\r\nMAIL FROM:<eve@example.org>\r\n..two".into(),
        ..message("ada@example.org")
    };
    smtp.send(&message).await.expect("sent");
    let received = server.received().expect("mails");
    let [mail] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(mail.to, ["ada@example.org"]);
    assert_eq!(
        mail.subject.split_whitespace().collect::<Vec<_>>(),
        ["Hello", "Bcc:", "eve@example.org", "body"]
    );
    let (headers, _) = mail.raw.split_once("\r\n\r\n").expect("headers");
    assert!(!headers.lines().any(|line| line.starts_with("Bcc")), "{headers}");
    let lines: Vec<_> = mail.text.trim_end().lines().collect();
    assert_eq!(lines, ["one", ".", "MAIL FROM:<eve@example.org>", "..two"]);
}
