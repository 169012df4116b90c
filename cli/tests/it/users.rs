//! `streamspace users`, against a real server.

use crate::client::Person;

#[tokio::test(flavor = "multi_thread")]
async fn people_are_made_changed_and_kept_out() {
    let owner = Person::signed_in().await;
    let create = ["users", "create", "ada@example.org", "--name", "Ada Lovelace", "--username", "ada"];
    let weak = owner.hears(&create, "password1\n").await;
    assert_eq!(weak.code, 1);
    assert!(weak.err.contains("\n  password: ") && !weak.err.contains("password1"), "{}", weak.err);
    let made = owner.hears(&create, "a password of ada\n").await;
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("Ada Lovelace") && !made.out.contains("a password"), "{}", made.out);
    let twice = owner.hears(&create, "a password of ada\n").await;
    assert!(twice.code == 1 && twice.err.contains("has this"), "{}", twice.err);

    let shown = owner.json(&["users", "show", "ada"]).await;
    assert_eq!((&shown["email"], &shown["role"]), (&"ada@example.org".into(), &"user".into()));
    assert_eq!(owner.json(&["users", "show", "Ada@Example.org"]).await, shown);
    let listed = owner.succeeds(&["users", "list", "--search", "lovelace"]).await;
    assert!(listed.contains("ada@example.org") && !listed.contains("admin@localhost"), "{listed}");
    let listed = owner.succeeds(&["users", "list", "--role", "owner", "-q"]).await;
    assert!(!listed.contains(shown["id"].as_str().unwrap()), "{listed}");
    assert_eq!(owner.says(&["users", "show", "nobody@example.org"]).await.code, 2);

    let ada = Person::new().await;
    let lines = "ada@example.org\na password of ada\n";
    assert_eq!(ada.signs_in(lines).await.code, 0);
    let refused = ada.says(&["users", "list"]).await;
    assert!(refused.code == 1 && refused.err.contains("higher one"), "{}", refused.err);
    owner.succeeds(&["users", "set-role", "ada", "admin"]).await;
    ada.succeeds(&["users", "list"]).await;
    let refused = ada.says(&["users", "set-role", "admin@localhost", "viewer"]).await;
    assert!(refused.code == 1 && refused.err.contains("platform administrators"), "{}", refused.err);

    assert_eq!(owner.succeeds(&["users", "disable", "ada"]).await, "ada is kept out\n");
    assert!(owner.succeeds(&["users", "list", "--disabled"]).await.contains("ada@example.org"));
    assert!(ada.says(&["jobs", "list"]).await.err.contains("is over"));
    assert_eq!(ada.signs_in(lines).await.code, 1);
    owner.succeeds(&["users", "enable", "ada"]).await;
    assert_eq!(ada.signs_in(lines).await.code, 0);

    // Who mistypes too often waits, or is let in by an administrator.
    for _ in 0..5 {
        assert_eq!(ada.signs_in("ada@example.org\nno such password\n").await.code, 1);
    }
    assert_eq!(ada.signs_in(lines).await.code, 1);
    assert!(owner.succeeds(&["users", "show", "ada"]).await.contains("locked"));
    owner.succeeds(&["users", "unlock", "ada"]).await;
    assert_eq!(ada.signs_in(lines).await.code, 0);

    let moved = ["users", "update", "ada", "--name", "Countess", "--email", "countess@example.org"];
    assert_eq!(owner.succeeds(&moved).await, "ada is changed\n");
    let shown = owner.json(&["users", "show", "ada"]).await;
    assert_eq!((&shown["name"], &shown["email"]), (&"Countess".into(), &"countess@example.org".into()));
    assert_eq!(owner.says(&["users", "update", "ada"]).await.code, 2, "what?");
    assert_eq!(owner.succeeds(&["users", "reset-mfa", "ada"]).await, "ada has no second factor\n");

    let invite = ["users", "invite", "grace@example.org", "--name", "Grace", "--role", "viewer"];
    assert_eq!(owner.succeeds(&invite).await, "grace@example.org is invited as viewer\n");
    assert_eq!(owner.json(&["users", "show", "grace"]).await["role"], "viewer");
    let mailed = owner.succeeds(&["users", "invite", "joan@example.org", "--wait", "--timeout", "60s"]).await;
    assert!(mailed.contains("succeeded"), "{mailed}");

    assert_eq!(owner.says(&["users", "delete", "ada"]).await.code, 2, "what becomes of hers?");
    let unasked = owner.says(&["users", "delete", "ada", "--purge"]).await;
    assert!(unasked.code == 2 && unasked.err.contains("--yes"), "{}", unasked.err);
    let heir = ["users", "delete", "ada", "--transfer-to", "nobody@example.org", "--yes"];
    assert_eq!(owner.says(&heir).await.code, 2);
    let gone =
        owner.succeeds(&["users", "delete", "ada", "--purge", "--yes", "--wait", "--timeout", "60s"]).await;
    assert!(gone.contains("succeeded"), "{gone}");
    assert_eq!(owner.says(&["users", "show", "ada"]).await.code, 2);
    let gone =
        owner.succeeds(&["users", "delete", "joan", "--transfer-to", "admin@localhost", "--yes"]).await;
    assert!(gone.contains("streamspace jobs watch"), "{gone}");
}
