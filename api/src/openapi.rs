//! The OpenAPI document: what the routes say of themselves, completed by what holds for all of them.

use serde_json::{Map, Value, json};
use utoipa::{OpenApi, openapi::OpenApi as Document};

use crate::{
    browser,
    operations::{self, Access},
    problem::Problem,
    router,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "StreamSpace",
        description = "Durable jobs over REST: what is accepted is not lost, and can be polled, waited for and watched.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "jobs", description = "Jobs, queues, workers and schedules"),
        (name = "auth", description = "Signing in, people, and the tenant's profile"),
        (name = "api-keys", description = "Ways in for programs"),
        (name = "audit", description = "Who changed what"),
        (name = "realtime", description = "Streams"),
        (name = "teams", description = "People who share sessions and an allowance"),
        (name = "settings", description = "What administrators of the tenant set at run time"),
        (name = "health", description = "Whether a process serves, and what it counts"),
    ),
    components(schemas(Problem))
)]
struct Base;

pub(crate) fn base() -> Document {
    Base::openapi()
}

/// The document as it is committed and served: pretty, with a newline, its fields in a stable order.
pub fn openapi_json() -> String {
    let document = complete(router::operations().into_openapi());
    let mut text = serde_json::to_string_pretty(&document).expect("a JSON value");
    text.push('\n');
    text
}

/// Adds what no route should have to repeat: who may call it, how it is refused, what every request
/// may carry.
pub(crate) fn complete(document: Document) -> Value {
    let mut document = serde_json::to_value(document).expect("the document is plain data");
    let components = &mut document["components"];
    components["securitySchemes"] = json!({
        "apiKey": { "type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`sk_…`" },
        "bearer": { "type": "http", "scheme": "bearer", "description": "The same key (`Bearer sk_…`), or an access token" },
        "session": {
            "type": "apiKey", "in": "cookie", "name": browser::SESSION,
            "description": "Of a browser; what changes something needs our own `Origin` beside it"
        },
        "ticket": {
            "type": "apiKey", "in": "query", "name": "ticket",
            "description": "For streams: from POST /api/v1/streams/ticket, valid once"
        },
    });
    components["responses"] = json!({ "Problem": {
        "description": "A problem (RFC 9457)",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        "headers": { "X-Request-Id": { "schema": { "type": "string" } } },
    }});
    components["parameters"] = json!({ "IdempotencyKey": {
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "The same key with the same body is answered once, and replayed for 24 h",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
    }});
    let paths = document["paths"].as_object_mut().expect("there are paths");
    for (path, item) in paths.iter_mut() {
        for (method, operation) in item.as_object_mut().expect("a path has operations") {
            if let Some(known) = operations::OPERATIONS
                .iter()
                .find(|known| known.path == path && known.method.eq_ignore_ascii_case(method))
            {
                describe(operation, known);
            }
        }
    }
    paths.extend(admin());
    document
}

fn describe(operation: &mut Value, known: &operations::Operation) {
    let Access::Needs { permission, area } = known.access else {
        operation["security"] = json!([]);
        if known.access == Access::Public {
            operation["responses"]["429"] = json!({ "$ref": "#/components/responses/Problem" });
        }
        return;
    };
    let mut schemes = vec![json!({ "apiKey": [] }), json!({ "bearer": [] }), json!({ "session": [] })];
    if known.streams {
        schemes.push(json!({ "ticket": [] }));
    }
    operation["security"] = schemes.into();
    operation["x-permission"] = permission.as_str().into();
    if let Some(area) = area {
        let act = if known.method == "GET" { "read" } else { "write" };
        operation["x-scope"] = format!("{area}.{act}").into();
    }
    let has_body = operation["requestBody"].is_object();
    let has_parameters = operation["parameters"].as_array().is_some_and(|list| !list.is_empty());
    let responses = operation["responses"].as_object_mut().expect("an operation has answers");
    let mut refusals = vec!["401", "403", "429"];
    if known.path.contains('{') {
        refusals.extend(["400", "404"]);
    }
    if has_parameters || has_body {
        refusals.push("422");
    }
    if has_body {
        refusals.extend(["400", "413", "415"]);
    }
    if known.method == "POST" {
        refusals.push("409");
    }
    for status in refusals.into_iter().chain(["default"]) {
        responses.entry(status).or_insert_with(|| json!({ "$ref": "#/components/responses/Problem" }));
    }
    if known.method == "POST" {
        let reference = json!({ "$ref": "#/components/parameters/IdempotencyKey" });
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(reference),
            None => operation["parameters"] = json!([reference]),
        }
    }
}

/// What every process answers on its admin listener, beside this port.
fn admin() -> Map<String, Value> {
    let servers = json!([{
        "url": "http://localhost:9464",
        "description": "The admin listener of each process (server.admin_host, server.admin_port)",
    }]);
    let health = |status: &str, text: &str| {
        json!({ status: {
            "description": text,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Health" } } },
        }})
    };
    let operation = |id: &str, summary: &str, responses: Value| {
        json!({ "get": {
            "operationId": id, "summary": summary, "tags": ["health"], "security": [],
            "servers": servers.clone(), "responses": responses,
        }})
    };
    let mut ready = health("200", "Requests can be served");
    ready["503"] = health("503", "They cannot, and why")["503"].take();
    Map::from_iter([
        ("/health/live".to_owned(), operation("live", "The process runs", health("200", "It runs"))),
        ("/health/ready".to_owned(), operation("ready", "Requests can be served", ready)),
        (
            "/metrics".to_owned(),
            operation(
                "metrics",
                "What the process counts, for Prometheus",
                json!({ "200": {
                    "description": "Prometheus text",
                    "content": { "text/plain": { "schema": { "type": "string" } } },
                }}),
            ),
        ),
    ])
}
