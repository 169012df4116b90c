use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{Stream, stream};
use http::{HeaderValue, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamspace_domain::{
    audit::{self, Filter},
    identity::Permission,
};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    caller::Caller,
    extract::{Faults, Query, Validate},
    page::{self, Linked, List, Page},
    problem::ApiError,
    state::Api,
    view::AuditRecord,
};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_audit)).routes(routes!(export_audit))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
struct ListAudit {
    /// What this person did, also through keys and schedules of theirs.
    user: Option<Uuid>,
    /// As `user`.
    #[serde(rename = "user_id")]
    #[param(rename = "user_id")]
    user_id: Option<Uuid>,
    /// As `user`.
    #[serde(rename = "userId")]
    #[param(rename = "userId")]
    user_id_alias: Option<Uuid>,
    #[param(example = "schedules.update")]
    action: Option<String>,
    #[param(example = "schedule")]
    resource_type: Option<String>,
    resource_id: Option<String>,
    ip: Option<String>,
    /// At this time or later.
    from: Option<Timestamp>,
    /// Before this time.
    to: Option<Timestamp>,
    /// A text anywhere in the record.
    q: Option<String>,
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: the last page's `nextCursor`.
    cursor: Option<String>,
}

/// The parameters that both operations have.
struct Asked<'a> {
    users: [Option<Uuid>; 3],
    texts: [(&'static str, Option<&'a String>); 5],
}

impl Asked<'_> {
    fn check(&self, faults: &mut Faults) {
        for (name, text) in self.texts {
            if let Some(text) = text {
                faults.text(name, text, 200);
            }
        }
        let mut users = self.users.into_iter().flatten();
        if let Some(first) = users.next()
            && users.any(|other| other != first)
        {
            faults.add("user", "user, user_id and userId are the same parameter, with different values here");
        }
    }

    fn user(&self) -> Option<Uuid> {
        self.users.into_iter().flatten().next()
    }
}

macro_rules! asked {
    ($query:expr) => {
        Asked {
            users: [$query.user, $query.user_id, $query.user_id_alias],
            texts: [
                ("action", $query.action.as_ref()),
                ("resourceType", $query.resource_type.as_ref()),
                ("resourceId", $query.resource_id.as_ref()),
                ("ip", $query.ip.as_ref()),
                ("q", $query.q.as_ref()),
            ],
        }
    };
}

macro_rules! filter {
    ($query:expr) => {
        Filter {
            user: asked!($query).user().map(Into::into),
            action: $query.action.clone(),
            resource_type: $query.resource_type.clone(),
            resource_id: $query.resource_id.clone(),
            ip: $query.ip.clone(),
            from: $query.from,
            to: $query.to,
            q: $query.q.clone(),
        }
    };
}

impl Validate for ListAudit {
    fn validate(&self, faults: &mut Faults) {
        page::check(self.limit, faults);
        asked!(self).check(faults);
    }
}

/// Who changed what in the tenant, newest first
///
/// A page may be short and have a next one: a filter that matches little does not make it slow.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(ListAudit), responses((status = 200, body = Page<AuditRecord>)))]
async fn list_audit(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListAudit>,
) -> Result<Linked<AuditRecord>, ApiError> {
    let filter = filter!(query);
    let list = List::new("/api/v1/audit")
        .filter("user", filter.user)
        .filter("action", filter.action.as_ref())
        .filter("resourceType", filter.resource_type.as_ref())
        .filter("resourceId", filter.resource_id.as_ref())
        .filter("ip", filter.ip.as_ref())
        .filter("from", filter.from)
        .filter("to", filter.to)
        .filter("q", filter.q.as_ref());
    let before: Option<Uuid> = list.begin(query.cursor.as_deref())?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let page = audit::list(&mut *api.queue.read().await?, caller.actor(), &filter, before, limit).await?;
    Ok(list.page(page.records.into_iter().map(AuditRecord::from).collect(), page.next, limit))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Csv,
    #[default]
    Jsonl,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
struct ExportAudit {
    /// Comma-separated values, or a JSON object a line.
    #[param(inline, default = "jsonl")]
    format: Format,
    /// What this person did, also through keys and schedules of theirs.
    user: Option<Uuid>,
    /// As `user`.
    #[serde(rename = "user_id")]
    #[param(rename = "user_id")]
    user_id: Option<Uuid>,
    /// As `user`.
    #[serde(rename = "userId")]
    #[param(rename = "userId")]
    user_id_alias: Option<Uuid>,
    #[param(example = "schedules.update")]
    action: Option<String>,
    #[param(example = "schedule")]
    resource_type: Option<String>,
    resource_id: Option<String>,
    ip: Option<String>,
    /// At this time or later.
    from: Option<Timestamp>,
    /// Before this time; the beginning of the export without it.
    to: Option<Timestamp>,
    /// A text anywhere in the record.
    q: Option<String>,
}

impl Validate for ExportAudit {
    fn validate(&self, faults: &mut Faults) {
        asked!(self).check(faults);
    }
}

/// All that the filters match, oldest first, as one stream
///
/// It ends early, without its last chunk, when the caller's rights end meanwhile.
#[utoipa::path(
    get, path = "/api/v1/audit/export", tag = "audit", params(ExportAudit),
    responses((status = 200, description = "`text/csv` with a head, or `application/jsonl`", content(
        (String = "text/csv"), (AuditRecord = "application/jsonl")
    )))
)]
async fn export_audit(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ExportAudit>,
) -> Result<Response, ApiError> {
    let filter = filter!(query);
    // What arrives meanwhile would make it endless.
    let filter = Filter { to: Some(filter.to.unwrap_or_else(Timestamp::now)), ..filter };
    let (kind, name) = match query.format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "attachment; filename=\"audit.csv\""),
        Format::Jsonl => ("application/jsonl", "attachment; filename=\"audit.jsonl\""),
    };
    let mut export = Export { api, caller, filter, format: query.format, at: At::Start };
    // A refusal is an answer of its own, so the first chunk is read before there is one.
    let first = export.chunk().await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(name)),
    ];
    Ok((headers, Body::from_stream(export.stream(first))).into_response())
}

struct Export {
    api: Api,
    caller: Caller,
    filter: Filter,
    format: Format,
    at: At,
}

enum At {
    Start,
    After(Uuid),
    End,
}

/// How long the database may take for a chunk.
const PATIENCE: Duration = Duration::from_secs(30);

impl Export {
    /// The next chunk, read when the client has taken the last one: between two there is no
    /// connection, and in memory there is one of them.
    async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        let after = match self.at {
            At::Start => None,
            At::After(id) => Some(id),
            At::End => return Ok(None),
        };
        let page = {
            let mut conn = self.api.queue.read().await?;
            audit::export(&mut conn, self.caller.actor(), &self.filter, after).await?
        };
        let mut text = String::new();
        if self.format == Format::Csv && matches!(self.at, At::Start) {
            text.push_str(AuditRecord::CSV_HEAD);
        }
        for record in page.records {
            let record = AuditRecord::from(record);
            match self.format {
                Format::Csv => record.write_csv(&mut text),
                Format::Jsonl => {
                    let line = serde_json::to_string(&record).map_err(|error| ApiError::internal(&error))?;
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
        self.at = page.next.map_or(At::End, At::After);
        Ok(Some(text.into()))
    }

    /// Whether whoever asked may still read.
    async fn is_permitted(&self) -> bool {
        let credential = self.caller.credential();
        let still = timeout(PATIENCE, self.api.callers.still([credential])).await;
        // The token that opened it ends it, however long its sign-in goes on.
        !self.caller.checked().is_over()
            && still.ok().and_then(Result::ok).is_some_and(|still| {
                still.get(&credential).is_some_and(|now| {
                    !now.must_enrol
                        && now.scopes.allow("audit", false)
                        && now.actor.tenant == self.caller.actor().tenant
                        && Permission::AuditRead.is_held_by(&now.actor)
                })
            })
    }

    fn stream(self, first: Option<Bytes>) -> impl Stream<Item = io::Result<Bytes>> {
        stream::unfold((Some(self), first), async |(export, first)| {
            let mut export = export?;
            if let Some(first) = first {
                return Some((Ok(first), (Some(export), None)));
            }
            if matches!(export.at, At::End) {
                return None;
            }
            // The client must see that the rest is missing.
            let broken = |why: &str| Some((Err(io::Error::other(why.to_owned())), (None, None)));
            if !export.is_permitted().await {
                return broken("the rights ended");
            }
            match timeout(PATIENCE, export.chunk()).await {
                Ok(Ok(Some(chunk))) => Some((Ok(chunk), (Some(export), None))),
                Ok(Ok(None)) => None,
                Ok(Err(error)) => broken(&error.problem().title),
                Err(_) => broken("the database did not answer in time"),
            }
        })
    }
}
