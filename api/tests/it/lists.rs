//! Pages, and the parameters of lists.

use crate::app::{App, any_id};

/// Follows the cursors to the end.
async fn pages(app: &App, path: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let answer = app.get(&app.ours.owner, &path).await.expect(200);
        let page = answer.json();
        let ids = page["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
        pages.push(ids.collect());
        // The header and the field lead to the same place.
        let link = answer.header("link").strip_prefix('<').and_then(|link| link.split('>').next());
        next = link.map(str::to_owned);
        match (page["nextCursor"].as_str(), &next) {
            (Some(cursor), Some(next)) => assert!(next.ends_with(&format!("cursor={cursor}")), "{next}"),
            (cursor, next) => assert!(cursor.is_none() && next.is_none(), "{cursor:?} {next:?}"),
        }
    }
    pages
}

#[tokio::test]
async fn pages_hold_everything_once_while_more_arrives() {
    let app = App::start().await;
    let mut made = Vec::new();
    for _ in 0..25 {
        made.push(app.job(&app.ours.owner).await.to_string());
    }
    made.reverse();
    let listed = pages(&app, "/api/v1/jobs?limit=10&kind=test.nothing&state=queued,running").await;
    assert_eq!(listed.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(listed.concat(), made);

    let first = app.get(&app.ours.owner, "/api/v1/jobs?limit=10").await.json();
    let cursor = first["nextCursor"].as_str().unwrap();
    app.job(&app.ours.owner).await;
    let second = app.get(&app.ours.owner, &format!("/api/v1/jobs?limit=10&cursor={cursor}")).await.json();
    assert_eq!(second["items"][0]["id"].as_str(), Some(made[10].as_str()));
}

#[tokio::test]
async fn a_cursor_is_opaque_and_bound() {
    let app = App::start().await;
    for _ in 0..3 {
        app.job(&app.ours.owner).await;
    }
    let page = app.get(&app.ours.owner, "/api/v1/jobs?limit=1").await.json();
    let cursor = page["nextCursor"].as_str().unwrap();
    let list = async |query: String| app.get(&app.ours.owner, &format!("/api/v1/jobs?{query}")).await;
    list(format!("cursor={cursor}")).await.expect(200);
    list(format!("cursor={cursor}x")).await.problem(422, "invalid");
    list(format!("cursor={cursor}&kind=other")).await.problem(422, "invalid");
    list("cursor='%20or%201=1".to_owned()).await.problem(422, "invalid");
    app.get(&app.ours.owner, &format!("/api/v1/schedules?cursor={cursor}")).await.problem(422, "invalid");
}

#[tokio::test]
async fn parameters_are_strict() {
    let app = App::start().await;
    let id = any_id();
    for wrong in [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=many",
        "limti=5",
        "state=sleeping",
        "state=",
        "state=blocked",
        "parent=5",
        "createdFrom=yesterday",
        "sort=name",
        "kind=%00",
        &format!("user={id}&userId={}", any_id()),
    ] {
        app.get(&app.ours.owner, &format!("/api/v1/jobs?{wrong}")).await.problem(422, "invalid");
    }
    for right in [
        "limit=200&sort=-createdAt",
        "state=failed,cancelled&createdFrom=2026-01-01T00:00:00Z",
        &format!("user={id}&user_id={id}&userId={id}"),
    ] {
        app.get(&app.ours.owner, &format!("/api/v1/jobs?{right}")).await.expect(200);
    }
    for path in ["queues", "workers", "schedules"] {
        let list = app.get(&app.ours.owner, &format!("/api/v1/{path}?limit=1")).await.expect(200).json();
        assert!(list["items"].as_array().unwrap().len() <= 1);
        app.get(&app.ours.owner, &format!("/api/v1/{path}?limit=500")).await.problem(422, "invalid");
    }
}

#[tokio::test]
async fn queues_page_by_their_names() {
    let app = App::start().await;
    app.execute(
        "insert into queue_controls (queue, tenant_id, max_running, updated_at)
         select queue, id, 1, now() from tenants, unnest(array['a', 'b', 'z']) as q(queue) where slug = 'ours'",
    )
    .await;
    let (mut names, mut path) = (Vec::new(), "/api/v1/queues?limit=1".to_owned());
    loop {
        let page = app.get(&app.ours.owner, &path).await.expect(200).json();
        names.push(page["items"][0]["name"].as_str().unwrap().to_owned());
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/queues?limit=1&cursor={cursor}"),
            None => break,
        }
    }
    assert!(names.is_sorted() && names.len() >= 4, "{names:?}");
}
