//! Pages of lists. A cursor is opaque and says where the next page begins; one that was changed, or
//! that belongs to another list or other filters, is refused.

use std::{marker::PhantomData, str::FromStr};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, header};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::{extract::Faults, problem::ApiError};

pub const DEFAULT_LIMIT: u32 = 50;
pub const MAX_LIMIT: u32 = 200;

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it back as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `limit` and `cursor`, checked.
pub fn check(limit: Option<u32>, faults: &mut Faults) {
    if limit.is_some_and(|limit| !(1..=MAX_LIMIT).contains(&limit)) {
        faults.add("limit", format!("between 1 and {MAX_LIMIT}"));
    }
}

/// One list with its filters: what a cursor is good for.
#[derive(Clone, Debug)]
pub struct List<'a> {
    path: &'a str,
    /// The parameters, in their own order.
    filters: Vec<(&'static str, String)>,
}

const CHECK: usize = 8;

impl<'a> List<'a> {
    pub fn new(path: &'a str) -> Self {
        Self { path, filters: Vec::new() }
    }

    #[must_use]
    pub fn filter(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.filters.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Where to begin: the position that [`List::page`] was given.
    pub fn begin<P: FromStr>(&self, cursor: Option<&str>) -> Result<Option<P>, ApiError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let position = self.open(cursor).and_then(|position| position.parse().ok());
        match position {
            Some(position) => Ok(Some(position)),
            None => Err(ApiError::invalid_field("cursor", "not a cursor of this list with these filters")),
        }
    }

    fn open(&self, cursor: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (check, position) = bytes.split_at_checked(CHECK)?;
        (check == self.check(position)).then(|| String::from_utf8(position.to_vec()).ok()).flatten()
    }

    pub fn page<T>(&self, items: Vec<T>, next: Option<impl ToString>, limit: u32) -> Linked<T> {
        let next_cursor = next.map(|position| {
            let position = position.to_string();
            URL_SAFE_NO_PAD.encode([&self.check(position.as_bytes()), position.as_bytes()].concat())
        });
        let link = next_cursor.as_ref().map(|cursor| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(&self.filters).append_pair("limit", &limit.to_string());
            format!("<{}?{}>; rel=\"next\"", self.path, query.append_pair("cursor", cursor).finish())
        });
        Linked { page: Page { items, next_cursor }, link, of: PhantomData }
    }

    /// A page of one more than `limit` items were there so many; each item's position is its key.
    pub fn page_of<T, P: ToString>(&self, mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> P) -> Linked<T> {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(key);
        self.page(items, next, limit)
    }

    /// Finds what was changed by mistake. It guards nothing: a position reaches only what the caller
    /// may see anyway.
    fn check(&self, position: &[u8]) -> [u8; CHECK] {
        let mut hash = Sha256::new();
        let filters = self.filters.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        for part in [position, self.path.as_bytes()].into_iter().chain(filters) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        *hash.finalize().first_chunk().expect("a hash is longer")
    }
}

/// A page with its `Link` header.
pub struct Linked<T, P = Page<T>> {
    page: P,
    link: Option<String>,
    of: PhantomData<T>,
}

impl<T> Linked<T> {
    /// As a part of another answer.
    pub fn within<B: Serialize>(self, answer: impl FnOnce(Page<T>) -> B) -> Linked<B, B> {
        Linked { page: answer(self.page), link: self.link, of: PhantomData }
    }
}

impl<T, P: Serialize> IntoResponse for Linked<T, P> {
    fn into_response(self) -> Response {
        let mut response = Json(self.page).into_response();
        if let Some(link) = self.link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_list_alone() {
        let list = List::new("/api/v1/jobs").filter("kind", Some("a b"));
        let at = Uuid::now_v7();
        let page = list.page(vec![1], Some(at), 10);
        let cursor = page.page.next_cursor.expect("a next page");
        assert_eq!(list.begin(Some(&cursor)).ok(), Some(Some(at)));
        assert_eq!(
            page.link.as_deref(),
            Some(format!("</api/v1/jobs?kind=a+b&limit=10&cursor={cursor}>; rel=\"next\"").as_str())
        );
        assert!(List::new("/api/v1/jobs").begin::<Uuid>(Some(&cursor)).is_err());
        assert!(List::new("/api/v1/other").filter("kind", Some("a b")).begin::<Uuid>(Some(&cursor)).is_err());
    }

    #[test]
    fn a_cursor_that_was_changed_is_refused() {
        let list = List::new("/api/v1/jobs");
        let cursor = list.page(vec![1], Some(Uuid::now_v7()), 10).page.next_cursor.expect("a next page");
        for n in 0..cursor.len() {
            let mut changed: Vec<u8> = cursor.clone().into_bytes();
            changed[n] = if changed[n] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            let status = list.begin::<Uuid>(Some(&changed)).expect_err("refused").problem().status;
            assert_eq!(status, 422);
        }
        for wrong in ["", "x", "ä", &cursor[1..], &"A".repeat(10_000)] {
            assert!(list.begin::<Uuid>(Some(wrong)).is_err(), "{wrong:.20}");
        }
    }
}
