//! How a person is shown.

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    output::{Details, Row},
    table::{Cell, Column, Tone},
    text::{moment, relative},
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    pub id: String,
    pub name: String,
    pub email: String,
    email_verified: bool,
    pub username: String,
    pub role: String,
    pub platform_admin: bool,
    active: bool,
    pub mfa_enabled: bool,
    last_login: Option<Timestamp>,
    last_active_at: Option<Timestamp>,
    failed_login_count: u32,
    locked_until: Option<Timestamp>,
    created_at: Timestamp,
}

impl User {
    fn state(&self) -> Cell {
        match (self.active, self.locked_until) {
            (false, _) => Cell::new("disabled", Tone::Faint),
            (true, Some(_)) => Cell::new("locked", Tone::Warning),
            (true, None) => Cell::new("active", Tone::Good),
        }
    }
}

impl Row for User {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::shrinking("NAME"),
        Column::shrinking("EMAIL"),
        Column::text("ROLE"),
        Column::text("STATE"),
        Column::number("LAST ACTIVE").dispensable(),
        Column::number("CREATED").dispensable(),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.name.as_str().into(),
            self.email.as_str().into(),
            self.role.as_str().into(),
            self.state(),
            self.last_active_at.map(|at| relative(at, now)).unwrap_or_default().into(),
            relative(self.created_at, now).into(),
        ]
    }
}

impl Details for User {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let at = |time: Option<Timestamp>| Cell::from(time.map(|at| moment(at, now)).unwrap_or_default());
        let words = |is: bool, yes: &'static str, no: &'static str| Cell::from(if is { yes } else { no });
        let failed = Some(self.failed_login_count).filter(|count| *count > 0);
        vec![
            ("id", self.id.as_str().into()),
            ("name", self.name.as_str().into()),
            ("e-mail", self.email.as_str().into()),
            ("address", words(self.email_verified, "verified", "not verified")),
            ("username", self.username.as_str().into()),
            ("role", self.role.as_str().into()),
            ("installation", words(self.platform_admin, "administrator", "")),
            ("state", self.state()),
            ("locked until", at(self.locked_until)),
            ("failed sign-ins", failed.map(|count| count.to_string()).unwrap_or_default().into()),
            ("second factor", words(self.mfa_enabled, "on", "off")),
            ("last sign-in", at(self.last_login)),
            ("last active", at(self.last_active_at)),
            ("created", moment(self.created_at, now).into()),
        ]
    }
}
