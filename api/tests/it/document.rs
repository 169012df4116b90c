//! The document that clients are made from.

use reqwest::Method;
use serde_json::Value;
use streamspace_api::operations::{Access, find};

use crate::app::{Answer, App};

#[test]
fn the_committed_document_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == streamspace_api::openapi_json(),
        "api/openapi.json is not up to date: make generate"
    );
}

#[test]
fn every_operation_says_what_it_is() {
    let document: Value = serde_json::from_str(&streamspace_api::openapi_json()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::HashSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
            assert!(ids.insert(id.to_owned()), "{name}: the id {id} is another's");
            assert!(operation["summary"].is_string(), "{name} has no summary");
            assert!(operation["security"].is_array(), "{name} does not say who may call it");
            assert!(operation["tags"].is_array(), "{name} has no tag");
            let known = find(&method.to_uppercase().parse().unwrap(), path);
            match known.map(|known| known.access) {
                Some(Access::Needs { .. }) => {
                    assert!(operation["x-permission"].is_string(), "{name} names no permission");
                    assert!(operation["responses"]["401"].is_object(), "{name} is never refused");
                    assert!(operation["responses"]["429"].is_object(), "{name} has no limit");
                }
                Some(Access::Public) => {
                    assert!(operation["responses"]["429"].is_object(), "{name} has no limit");
                }
                Some(Access::Unlimited) => {}
                None => assert!(operation["servers"].is_array(), "{name} is in no table"),
            }
        }
    }
    assert_references(&document, &document);
}

/// Every `$ref` leads somewhere.
fn assert_references(value: &Value, document: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| assert_references(value, document));
        }
        Value::Array(items) => items.iter().for_each(|value| assert_references(value, document)),
        _ => {}
    }
}

#[tokio::test]
async fn the_page_works_without_the_world() {
    let app = App::start().await;
    let page = Answer::of(app.anonymous(Method::GET, "/api/docs/")).await.expect(200);
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "{}", page.text);
    for part in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        Answer::of(app.anonymous(Method::GET, &format!("/api/docs/{part}"))).await.expect(200);
    }
    let served = Answer::of(app.anonymous(Method::GET, "/api/openapi.json")).await.expect(200).json();
    let printed: Value = serde_json::from_str(&streamspace_api::openapi_json()).unwrap();
    assert_eq!(served, printed);
}
