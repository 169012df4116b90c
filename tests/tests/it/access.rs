//! Who is refused: strangers everywhere, other tenants with foreign ids, and the owner of a tenant
//! where the installation is concerned. The OpenAPI document is what is walked, so that no operation
//! is forgotten.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::support::*;

struct Operation {
    method: String,
    path: String,
}

/// Every operation that is described.
async fn operations(api: &Api) -> Result<Vec<Operation>> {
    let document: Value = api.call("GET", "/api/openapi.json", None, None).await?.json().await?;
    let paths = document["paths"].as_object().context("a document has paths")?;
    // Signing in and people are walked where the API is tested, and what is public is public.
    let is_walked = |path: &str, operation: &Value| {
        !path.starts_with("/api/v1/auth/")
            && operation["security"].as_array().is_none_or(|any| !any.is_empty())
    };
    let of_path = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().into_iter().flatten();
        let methods = methods.filter(|(_, operation)| is_walked(path, operation));
        methods
            .map(|(name, _)| name.clone())
            .map(|name| Operation { method: name.to_uppercase(), path: path.clone() })
            .collect::<Vec<_>>()
    };
    let all: Vec<_> = paths.iter().flat_map(of_path).collect();
    assert!(all.len() > 25, "{} operations", all.len());
    Ok(all)
}

impl Operation {
    fn is_about(&self, thing: &str) -> bool {
        self.path.starts_with(&format!("/api/v1/{thing}/{{"))
    }

    /// With an id in its path.
    fn at(&self, id: &str) -> String {
        let path = self.path.replace("{name}", "lab").replace("{permission}", "team.manage");
        ["{id}", "{teamId}", "{userId}"].iter().fold(path, |path, place| path.replace(place, id))
    }

    /// A body that passes, so that what is refused is the caller.
    fn body(&self) -> Option<Value> {
        match (self.method.as_str(), self.path.as_str()) {
            ("PUT" | "POST", "/api/v1/schedules" | "/api/v1/schedules/{id}") => Some(
                json!({ "name": "theirs", "kind": "lab.play", "cron": "0 0 * * *", "arguments": Script::idle() }),
            ),
            ("POST", "/api/v1/schedules/preview") => Some(json!({ "cron": "0 0 * * *" })),
            ("PATCH", _) => Some(json!({ "paused": true })),
            ("POST", "/api/v1/streams/ticket") => Some(json!({ "path": "/api/v1/ws/jobs" })),
            _ => None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_everywhere() -> Result<()> {
    let lab = Lab::new().await?;
    let api = lab.api().await?;
    let id = uuid::Uuid::now_v7().to_string();
    for operation in operations(&api).await? {
        // What is told to everybody: that it is there, and whether it is well.
        if !operation.path.starts_with("/api/") {
            continue;
        }
        for key in [None, Some("sk_nobody_has_this_one")] {
            let answer =
                api.call(&operation.method, &operation.at(&id), key, operation.body().as_ref()).await?;
            assert_eq!(answer.status(), 401, "{} {}", operation.method, operation.path);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_things_do_not_exist() -> Result<()> {
    let lab = Lab::new().await?;
    let api = lab.api().await?;
    let (acme, rival) = (lab.organisation("acme").await?, lab.organisation("rival").await?);
    let schedule =
        json!({ "name": "nightly", "kind": "lab.play", "cron": "0 0 1 1 *", "arguments": Script::idle() });
    let made = api.call("POST", "/api/v1/schedules", Some(&acme.owner), Some(&schedule)).await?;
    let schedule = made.json::<Value>().await?["id"].as_str().context("a schedule has an id")?.to_owned();
    let job = lab.enqueue_for(acme.tenant, [play([])]).await?[0].to_string();
    let things = "select row_version from jobs union all select row_version from schedules";
    let before: Vec<i64> = sqlx::query_scalar(things).fetch_all(&lab.pool).await?;

    let mut tried = 0;
    for operation in operations(&api).await? {
        let id = match () {
            () if operation.is_about("jobs") => &job,
            () if operation.is_about("schedules") => &schedule,
            () => continue,
        };
        let path = operation.at(id);
        let answer =
            api.call(&operation.method, &path, Some(&rival.owner), operation.body().as_ref()).await?;
        assert_eq!(answer.status(), 404, "{} {path}", operation.method);
        tried += 1;
    }
    assert!(tried >= 10, "{tried}");
    for list in ["jobs", "schedules"] {
        let all = api.call("GET", &format!("/api/v1/{list}"), Some(&rival.owner), None).await?.text().await?;
        assert!(!all.contains(&job) && !all.contains(&schedule), "{all}");
    }
    let after: Vec<i64> = sqlx::query_scalar(things).fetch_all(&lab.pool).await?;
    assert_eq!(before, after, "nothing was touched");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_owner_does_not_command_the_installation() -> Result<()> {
    let lab = Lab::new().await?;
    let api = lab.api().await?;
    let (acme, rival) = (lab.organisation("acme").await?, lab.organisation("rival").await?);
    let worker = lab.worker().start().await;
    lab.sees_number("select count(*) from workers", 1, SOON).await;
    let id: uuid::Uuid = sqlx::query_scalar("select boot_id from workers").fetch_one(&lab.pool).await?;
    for verb in ["drain", "resume"] {
        let answer =
            api.call("POST", &format!("/api/v1/workers/{id}/{verb}"), Some(&acme.owner), None).await?;
        assert_eq!(answer.status(), 403, "{verb}");
    }
    // Its pause of a queue is its own.
    let paused = api.call("POST", "/api/v1/queues/lab/pause", Some(&acme.owner), None).await?;
    assert_eq!(paused.status(), 200);
    lab.sees_controls().await;
    let waits = lab.enqueue_for(acme.tenant, [play([])]).await?[0];
    let goes_on = lab.enqueue_for(rival.tenant, [play([])]).await?[0];
    lab.reaches(goes_on, "succeeded", SOON).await;
    assert_eq!(lab.job(waits).await.state, "queued");
    assert!(worker.status().is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_changes_nothing() -> Result<()> {
    let lab = Lab::new().await?;
    let api = lab.api().await?;
    let acme = lab.organisation("acme").await?;
    let job = lab.enqueue_for(acme.tenant, [play([])]).await?[0];
    let before = lab.job(job).await;
    for operation in operations(&api).await? {
        // A ticket carries rights on, and gives none; a key of one's own has one's own rights.
        let own = ["/api/v1/streams/ticket", "/api/v1/api-keys"];
        if operation.method == "GET" || own.contains(&operation.path.as_str()) {
            continue;
        }
        let path = operation.at(&job.to_string());
        let answer =
            api.call(&operation.method, &path, Some(&acme.viewer), operation.body().as_ref()).await?;
        // What a viewer may not even see is not found.
        assert!(
            [403, 404].contains(&answer.status().as_u16()),
            "{} {path}: {}",
            operation.method,
            answer.status()
        );
    }
    assert_eq!(lab.job(job).await, before);
    Ok(())
}
