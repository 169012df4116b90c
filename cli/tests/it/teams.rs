//! `streamspace teams`, against a real server.

use sqlx::Executor;

use crate::client::Person;

#[tokio::test(flavor = "multi_thread")]
async fn a_team_is_made_and_people_come_and_go() {
    let person = Person::logged_in().await;
    let bob = "insert into users (id, tenant_id, email, username, name, role)
               select gen_random_uuid(), id, 'bob@example.org', 'bob', 'Bob', 'user' from tenants where slug = 'default'";
    person.server.installation.connect().await.execute(bob).await.unwrap();

    let made = person.json(&["teams", "create", "Design", "--description", "Draws things"]).await;
    assert_eq!((&made["name"], &made["role"]), (&"Design".into(), &"owner".into()));
    let listed = person.succeeds(&["teams", "list", "--mine"]).await;
    assert!(listed.contains("Design") && listed.contains("owner"), "{listed}");
    assert_eq!(person.json(&["teams", "show", "Design"]).await, made);

    let added = person.succeeds(&["teams", "members", "add", "Design", "bob@example.org"]).await;
    assert_eq!(added, "bob@example.org is member of Design\n");
    let role = ["teams", "members", "role", "Design", "Bob@example.org", "admin"];
    assert_eq!(person.json(&role).await["role"], "admin");
    let members = person.json(&["teams", "members", "list", "Design"]).await;
    assert_eq!(members.as_array().unwrap().len(), 2);

    let last = person.says(&["teams", "members", "remove", "Design", "admin@localhost"]).await;
    assert!(last.code == 1 && last.err.contains("last owner"), "{}", last.err);
    person.succeeds(&["teams", "members", "remove", "Design", "bob@example.org"]).await;
    let again = person.says(&["teams", "members", "remove", "Design", "bob@example.org"]).await;
    assert_eq!(again.code, 2, "{}", again.err);
    let twice = person.json(&["teams", "create", "Design"]).await;
    assert_eq!(person.says(&["teams", "show", "Design"]).await.code, 2, "which of the two?");
    assert_eq!(person.json(&["teams", "show", twice["id"].as_str().unwrap()]).await["name"], "Design");
    assert_eq!(person.says(&["teams", "show", "nothing"]).await.code, 2);

    let id = twice["id"].as_str().unwrap();
    let named = person.json(&["teams", "update", id, "--name", "Paint"]).await;
    assert_eq!((&named["name"], &named["description"]), (&"Paint".into(), &"".into()));
    let described = person.json(&["teams", "update", "Paint", "--description", "Colours"]).await;
    assert_eq!((&described["name"], &described["description"]), (&"Paint".into(), &"Colours".into()));
    assert_eq!(person.says(&["teams", "update", "Paint"]).await.code, 2, "what?");
    let unasked = person.says(&["teams", "delete", "Paint"]).await;
    assert!(unasked.code == 2 && unasked.err.contains("--yes"), "{}", unasked.err);
    assert_eq!(person.succeeds(&["teams", "delete", "Paint", "--yes"]).await, "Paint is deleted\n");
    assert_eq!(person.says(&["teams", "show", "Paint"]).await.code, 2);
}
