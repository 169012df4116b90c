//! Three tenants do whatever comes to their minds. A model knows what is whose: no answer ever holds a
//! row of another tenant, of what is another's one hears what one hears of nothing, everybody finds what
//! they made, and whatever one tenant does, nothing of the others changes.

mod acts;
mod cast;
mod effects;
mod model;
mod reads;
mod walk;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::{
    cast::{Cast, MARKERS},
    effects::Tables,
    model::{Kind, Model},
    walk::Walk,
};
use crate::{app::App, sign_in::cheap};

/// What each tenant does before another's turn comes.
const TURN: usize = 12;

/// The actors are people, and have keys and sign-ins.
async fn beginning(app: &App, cast: &Cast) -> Model {
    let mut model = Model::default();
    for (index, person) in cast.people.iter().enumerate() {
        let user = model.add(Kind::User, person.id.to_string(), cast.tenant_of(index), None);
        user.acts = true;
    }
    for (tenant, id) in cast.tenants.iter().enumerate() {
        for kind in [Kind::Key, Kind::SignIn] {
            let there = format!("select count(*) from {} where tenant_id = '{id}'", kind.table());
            model.made_unnamed(kind, tenant, app.count(&there).await);
        }
        let done =
            |action| format!("select count(*) from audit where tenant_id = '{id}' and action = '{action}'");
        for action in ["api_keys.create", "users.create", "sign_ins.create"] {
            model.done.insert((action, tenant), app.count(&done(action)).await);
        }
        model.names[tenant] = format!("{} & Co", MARKERS[tenant]);
    }
    model
}

#[tokio::test]
async fn whatever_tenants_do_none_ever_sees_anothers_rows() {
    let seed: u64 = std::env::var("STREAMSPACE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    let turns = if std::env::var_os("STREAMSPACE_TEST_LONG").is_some() { 1000 } else { 75 };
    println!("STREAMSPACE_TEST_SEED={seed} repeats this");
    let app = App::start_with(cheap()).await;
    let cast = Cast::gather(&app).await;
    let model = beginning(&app, &cast).await;
    let tables = Tables::find(&app).await;
    let mut walk = Walk::new(&app, &cast, StdRng::seed_from_u64(seed), model);
    walk.model.learn_ids(&app, &cast).await;
    for turn in 0..turns {
        let tenant = turn % 3;
        let before = tables.rows(&app, &cast, tenant).await;
        for _ in 0..TURN {
            step(&mut walk, tenant).await;
        }
        let after = tables.rows(&app, &cast, tenant).await;
        assert_eq!(after, before, "what {} did changed what is another's", MARKERS[tenant]);
        walk.model.learn_ids(&app, &cast).await;
    }
    for actor in &cast.actors {
        for kind in Kind::ALL {
            walk.list(actor, kind).await;
        }
    }
    for actor in cast.actors.iter().filter(|actor| actor.is_owner()) {
        walk.whole_audit(actor).await;
    }
    walk.compare().await;
    let Walk { tried, succeeded, foreign, .. } = walk;
    println!(
        "figure: {succeeded} of {tried} acts upon own things succeeded, {foreign} upon others' were refused"
    );
    assert!(succeeded > tried / 4 && foreign > turns, "the walk gets somewhere");
}

async fn step(walk: &mut Walk<'_>, tenant: usize) {
    match walk.random.random_range(0..28) {
        0..=5 => walk.make(tenant).await,
        6..=16 => walk.act(tenant).await,
        17..=18 => {
            let (actor, kind) = (walk.actor(tenant), Kind::ALL[walk.one_of(Kind::ALL.len())]);
            walk.list(actor, kind).await;
        }
        19..=20 => walk.search(tenant).await,
        21..=22 => walk.of_the_tenant(tenant).await,
        23..=24 => walk.member(tenant).await,
        25 => walk.heir(tenant).await,
        26 => walk.matching(tenant).await,
        _ => walk.ticket(tenant).await,
    }
}
