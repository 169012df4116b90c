use std::{fs, os::unix::fs::PermissionsExt};

use streamspace_common::Config;
use streamspace_domain::mail::Message;
use streamspace_testkit::Scratch;

#[tokio::test]
async fn without_a_server_mail_becomes_files_for_their_owner_alone() {
    let scratch = Scratch::new("data").expect("a folder");
    let mut config = Config::default();
    config.server.data_dir = scratch.path().to_owned();
    let mailer = streamspace_mail::of_config(&config).expect("a mailer");
    for n in 1..=3 {
        let message = Message {
            to: "ada@example.org".to_owned(),
            subject: format!("Letter {n}"),
            text: format!("Come:\nhttps://example.org/?token={}\n\nNow.", "abc".repeat(40)).into(),
        };
        mailer.send(&message).await.expect("written");
    }
    let dir = scratch.path().join("mail");
    assert_eq!(fs::metadata(&dir).expect("made").permissions().mode() & 0o777, 0o700);
    let mut names: Vec<_> =
        fs::read_dir(dir).expect("readable").map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    assert_eq!(names.len(), 3, "nothing unfinished is left: {names:?}");
    for (name, n) in names.iter().zip(1..) {
        assert_eq!(name.extension().and_then(|name| name.to_str()), Some("eml"));
        assert_eq!(fs::metadata(name).expect("there").permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(name).expect("readable");
        let (headers, body) = text.split_once("\r\n\r\n").expect("headers and a body");
        assert!(headers.contains(&format!("Subject: Letter {n}\r\n")), "{headers}");
        assert!(headers.contains("From: noreply@streamspace.local\r\n"), "{headers}");
        // Whoever opens the file finds the link in one piece.
        assert!(body.contains(&format!("\r\nhttps://example.org/?token={}\r\n", "abc".repeat(40))), "{body}");
    }
}
