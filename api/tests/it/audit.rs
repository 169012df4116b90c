//! Reading the audit: whose it is, filters, pages, and exports that are longer than memory should be.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};

use crate::{
    access::schedule,
    app::{App, Person},
};

const PATH: &str = "/api/v1/audit";

async fn records(app: &App, who: &Person, query: &str) -> Vec<Value> {
    let page = app.get(who, &format!("{PATH}?{query}")).await.expect(200).json();
    page["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_change_is_found_by_everything_that_it_tells() {
    let app = App::start().await;
    let operator = &app.ours.operator;
    let made = app.post(operator, "/api/v1/schedules", schedule("found")).await.expect(201).json();
    app.post(&app.ours.owner, "/api/v1/schedules", schedule("other")).await.expect(201);
    app.post(&app.theirs.owner, "/api/v1/schedules", schedule("theirs")).await.expect(201);
    let id = made["id"].as_str().unwrap();
    let user = operator.id;
    for query in [
        format!("user={user}&action=schedules.create"),
        format!("userId={user}&user_id={user}&resourceType=schedule"),
        format!("resourceId={id}"),
        "q=FOUND".to_owned(),
        format!("ip=127.0.0.1&resourceType=schedule&resourceId={id}"),
        format!("from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&resourceId={id}"),
    ] {
        let found = records(&app, &app.ours.owner, &query).await;
        assert_eq!(found.len(), 1, "{query}");
        let record = &found[0];
        assert_eq!((&record["action"], &record["resourceId"]), (&json!("schedules.create"), &json!(id)));
        assert_eq!(record["user"], json!(user.to_string()));
        assert_eq!(record["actor"]["type"], json!("api_key"));
        assert_eq!(record["changes"]["after"]["name"], json!("found"));
        assert!(record["timestamp"].is_string() && record["requestId"].is_string());
    }
    for nothing in ["to=2020-01-01T00:00:00Z", "from=2100-01-01T00:00:00Z", "q=theirs", "q=%25", "ip=1.2.3.4"]
    {
        assert!(records(&app, &app.ours.owner, nothing).await.is_empty(), "{nothing}");
    }
    for wrong in ["limit=0", "from=yesterday", "user=me", "q=", "nothing=1", "action=%00"] {
        app.get(&app.ours.owner, &format!("{PATH}?{wrong}")).await.problem(422, "invalid");
    }
    for (who, theirs) in [(&app.ours.owner, "theirs"), (&app.theirs.owner, "found")] {
        let all = app.get(who, &format!("{PATH}?limit=200")).await.expect(200).text;
        let exported = app.get(who, &format!("{PATH}/export")).await.expect(200).text;
        assert!(!all.contains(theirs) && !exported.contains(theirs));
    }
    app.get(operator, PATH).await.problem(403, "forbidden");
    app.get(operator, &format!("{PATH}/export")).await.problem(403, "forbidden");
}

/// Rows of ours, a second apart.
async fn fill(app: &App, rows: usize) {
    app.execute(&format!(
        "insert into audit (id, tenant_id, actor_type, action, resource_type, resource_id, after)
         select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - 100000 + n / 1000), 12, '0')
                 || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid,
                '{}', 'system', case when n % 1000 = 0 then 'test.rare' else 'test.fill' end, 'thing', n::text,
                jsonb_build_object('n', n, 'text', 'a \"quoted\", text')
         from generate_series(1, {rows}) n",
        app.ours.id
    ))
    .await;
}

#[tokio::test]
async fn pages_of_a_rare_thing_are_short_and_lead_on() {
    let app = App::start().await;
    fill(&app, 12_000).await;
    let (mut found, mut pages, mut path) = (0, 0, format!("{PATH}?action=test.rare&limit=5"));
    loop {
        let page = app.get(&app.ours.owner, &path).await.expect(200).json();
        found += page["items"].as_array().unwrap().len();
        pages += 1;
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("{PATH}?action=test.rare&limit=5&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(found, 12);
    assert!((3..10).contains(&pages), "{pages}");
    let rare = app.get(&app.ours.owner, &format!("{PATH}/export?action=test.rare")).await.expect(200).text;
    assert_eq!(rare.lines().count(), 12);
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// In a process of its own: what other tests take meanwhile is not the export's.
#[tokio::test]
async fn an_export_of_many_rows_takes_little_memory() {
    let alone = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "audit::exports_many_rows", "--ignored", "--nocapture"])
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(Duration::from_secs(600), alone).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    said.lines().filter(|line| line.starts_with("figure:")).for_each(|line| println!("{line}"));
    let complained = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("1 passed"), "{said} {complained}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test above runs it"]
async fn exports_many_rows() {
    let app = App::start().await;
    let rows = if std::env::var_os("STREAMSPACE_TEST_LONG").is_some() { 1_000_000 } else { 200_000 };
    let since = Instant::now();
    fill(&app, rows).await;
    println!("figure: {rows} rows are there after {:.1?}", since.elapsed());
    for (format, head, width) in [("jsonl", 0, 150), ("csv", 1, 100)] {
        let path = format!("{PATH}/export?format={format}&q=a");
        let path =
            if format == "csv" { path } else { format!("{PATH}/export?format={format}&resourceType=thing") };
        let (before, since) = (resident_mib(), Instant::now());
        let request = app.request(&app.ours.owner, reqwest::Method::GET, &path);
        let answer = request.timeout(Duration::from_secs(600)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut body = answer.bytes_stream();
        let (mut lines, mut bytes, mut most) = (0, 0, before);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.unwrap();
            lines += chunk.iter().filter(|byte| **byte == b'\n').count();
            bytes += chunk.len();
            most = most.max(resident_mib());
        }
        println!(
            "figure: {lines} lines of {format}, {} MB, in {:.1?}; {} MiB more than the {before} MiB of before",
            bytes / 1_000_000,
            since.elapsed(),
            most - before
        );
        assert!(lines >= rows + head, "{lines}");
        assert!(bytes > rows * width, "{bytes}");
        assert!(most - before < 40, "{} MiB for {bytes} bytes", most - before);
    }
}

#[tokio::test]
async fn an_export_holds_no_connection_and_ends_with_the_rights() {
    let app = App::start().await;
    fill(&app, 60_000).await;
    let owner = &app.ours.owner;
    // More readers who read nothing than there are connections.
    let mut slow = Vec::new();
    for _ in 0..20 {
        let path = format!("{PATH}/export");
        slow.push(app.request(owner, reqwest::Method::GET, &path).send().await.unwrap());
    }
    app.get(owner, "/api/v1/jobs").await.expect(200);
    app.revoke(owner).await;
    let mut broken = 0;
    for answer in slow {
        assert_eq!(answer.status(), 200);
        broken += usize::from(answer.bytes().await.is_err());
    }
    assert!(broken > 0, "nobody was cut off");
}
