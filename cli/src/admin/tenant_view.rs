//! What `streamspace admin tenants` shows.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use streamspace_domain::identity::{Tenant, tenants::Census};

use crate::client::{
    output::{Details, Item, Row},
    table::{Cell, Column, Tone},
    text::{moment, relative},
};

#[derive(Serialize)]
pub struct WithCensus {
    #[serde(flatten)]
    pub tenant: Tenant,
    #[serde(flatten)]
    pub census: Census,
}

pub fn item<T: DeserializeOwned>(of: &impl Serialize) -> Result<Item<T>> {
    let raw = serde_json::value::to_raw_value(of).context("a tenant is plain data")?;
    Ok(Item::read(raw)?)
}

/// A tenant as tables show it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    id: String,
    name: String,
    slug: String,
    contact_email: Option<String>,
    tier: String,
    active: bool,
    delete_at: Option<Timestamp>,
    created_at: Timestamp,
    people: Option<u64>,
    #[serde(default)]
    owners: Vec<String>,
}

impl Shown {
    fn state(&self, now: Timestamp) -> Cell {
        match self.delete_at {
            Some(at) if at > now => Cell::new(format!("deleted {}", relative(at, now)), Tone::Bad),
            Some(_) => Cell::new("being deleted", Tone::Bad),
            None if self.active => Cell::new("active", Tone::Good),
            None => Cell::new("suspended", Tone::Warning),
        }
    }
}

impl Row for Shown {
    const COLUMNS: &'static [Column] = &[
        Column::text("SLUG"),
        Column::shrinking("NAME"),
        Column::text("TIER"),
        Column::text("STATE"),
        Column::text("CREATED").dispensable(),
        Column::text("ID").dispensable(),
    ];

    #[expect(clippy::misnamed_getters, reason = "commands take the slug")]
    fn id(&self) -> &str {
        &self.slug
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.slug.as_str().into(),
            self.name.as_str().into(),
            self.tier.as_str().into(),
            self.state(now),
            relative(self.created_at, now).into(),
            self.id.as_str().into(),
        ]
    }
}

impl Details for Shown {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let mut details: Vec<(&'static str, Cell)> = vec![
            ("slug", self.slug.as_str().into()),
            ("name", self.name.as_str().into()),
            ("id", self.id.as_str().into()),
            ("tier", self.tier.as_str().into()),
            ("state", self.state(now)),
            ("contact", self.contact_email.clone().unwrap_or_default().into()),
            ("people", self.people.unwrap_or_default().to_string().into()),
            ("owners", self.owners.join("\n").into()),
            ("created", moment(self.created_at, now).into()),
        ];
        if let Some(at) = self.delete_at {
            details.push(("to be deleted", Cell::new(moment(at, now), Tone::Bad)));
        }
        details
    }
}
