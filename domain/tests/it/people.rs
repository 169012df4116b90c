//! People leave: what they own is handed over or goes, what they did stays in the audit.

use serde_json::{Value, json};
use streamspace_common::{Actor, ApiKeyId, Classified, ErrorKind, JobId, Role, ScheduleId, TeamId, UserId};
use streamspace_domain::{
    Ports,
    api_keys::{self, NewApiKey, Owner, Scopes},
    identity::{self, ChangeUser, Error, Estate},
    jobs::{self, Change, Changed, Filter, jobs as kinds, schedules},
    teams::{self, NewTeam, TeamRole, Whom},
};
use streamspace_queue::{
    self as queue, State,
    inspect::JobRow,
    schedule::{CatchUp, Overlap, SaveSchedule},
};

use crate::bed::Bed;

struct House {
    bed: Bed,
    owner: Actor,
    /// Who leaves.
    ada: Actor,
    bob: Actor,
    eve: Actor,
}

impl House {
    async fn new() -> Self {
        let bed = Bed::new().await;
        let owner = bed.person(bed.tenant, Role::Owner).await;
        let ada = bed.person(bed.tenant, Role::Operator).await;
        let bob = bed.person(bed.tenant, Role::Operator).await;
        let eve = bed.person(bed.tenant, Role::User).await;
        Self { bed, owner, ada, bob, eve }
    }

    async fn ask(&self, who: &Actor, whom: &Actor, estate: Estate) -> Result<JobId, Error> {
        let mut tx = self.bed.tx(who);
        let (user, job) = identity::delete_user(&mut tx, id(whom), estate).await?;
        tx.commit().await?;
        assert!(!user.active);
        Ok(job)
    }

    /// Has Ada deleted, and looks at what became of the job.
    async fn delete(&self, estate: Estate) -> JobRow {
        let job = self.ask(&self.owner, &self.ada, estate).await.expect("accepted");
        self.run(job).await
    }

    async fn run(&self, job: JobId) -> JobRow {
        let worker = self.bed.worker(&Ports::default());
        let job = self.bed.ends(job).await;
        worker.stop().await;
        job
    }

    async fn change(&self, whom: &Actor, change: ChangeUser) -> Result<(), Error> {
        let mut tx = self.bed.tx(&self.owner);
        identity::change_user(&mut tx, id(whom), change).await?;
        Ok(tx.commit().await?)
    }

    /// Ada's, with these beside her.
    async fn team(&self, members: &[(&Actor, TeamRole)]) -> TeamId {
        let mut tx = self.bed.tx(&self.ada);
        let new = NewTeam { name: "Theirs".to_owned(), description: String::new() };
        let team = teams::create(&mut tx, new).await.expect("made").id;
        for (member, role) in members {
            let added = teams::add_member(&mut tx, team, Whom::User(id(member)), *role).await;
            added.expect("added");
        }
        tx.commit().await.expect("committed");
        team
    }

    async fn schedule(&self) -> ScheduleId {
        let save = SaveSchedule {
            name: "Every night".into(),
            kind: "jobs.change".into(),
            args: json!({ "change": "retry" }),
            cron: "0 3 * * *".into(),
            time_zone: "UTC".into(),
            jitter: std::time::Duration::ZERO,
            catch_up: CatchUp::One,
            catch_up_window: std::time::Duration::from_secs(3600),
            overlap: Overlap::Skip,
            paused: false,
        };
        let mut tx = self.bed.tx(&self.ada);
        let all = streamspace_domain::schedules(&Ports::default());
        let made = schedules::create(&mut tx, &all, save).await.expect("made").id;
        tx.commit().await.expect("committed");
        made
    }

    async fn key(&self) -> ApiKeyId {
        let mut tx = self.bed.tx(&self.ada);
        let new = NewApiKey {
            name: "hers".to_owned(),
            owner: Owner::User(id(&self.ada)),
            scopes: vec!["*".to_owned()],
            hourly_limit: 1,
            expires_at: None,
        };
        let (key, _) = api_keys::create(&mut tx, &Scopes::all(), u32::MAX, new).await.expect("made");
        tx.commit().await.expect("committed");
        key.id
    }

    async fn rows(&self, sql: &str) -> Value {
        let sql = format!("select coalesce(jsonb_agg(to_jsonb(r)), '[]') from ({sql}) r");
        let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(self.bed.queue.db().pool());
        rows.await.expect("read")
    }

    async fn members(&self, team: TeamId) -> Value {
        let sql = format!("select user_id, role from team_members where team_id = '{team}' order by user_id");
        self.rows(&sql).await
    }

    /// What Ada has done, as it is written down.
    async fn deeds(&self) -> Value {
        let sql = format!("select * from audit where user_id = '{}' order by id", id(&self.ada));
        self.rows(&sql).await
    }

    async fn is_there(&self, whom: &Actor) -> bool {
        let sql = format!("select 1 from users where id = '{}'", id(whom));
        self.rows(&sql).await != json!([])
    }
}

fn id(who: &Actor) -> UserId {
    who.user.expect("a person")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_owns_is_the_heirs_and_what_they_did_stays() {
    let house = House::new().await;
    let (ada, bob, eve) = (id(&house.ada), id(&house.bob), id(&house.eve));
    let alone = house.team(&[]).await;
    let led = house.team(&[(&house.eve, TeamRole::Admin), (&house.bob, TeamRole::Viewer)]).await;
    let shared = house.team(&[(&house.eve, TeamRole::Owner)]).await;
    let schedule = house.schedule().await;
    house.key().await;
    let deeds = house.deeds().await;
    assert!(deeds.as_array().expect("rows").len() > 5, "{deeds}");

    let job = house.delete(Estate::TransferTo(bob)).await;
    assert_eq!(job.state, State::Succeeded, "{:?}", job.errors);
    assert!(!house.is_there(&house.ada).await);
    assert_eq!(house.members(alone).await, json!([{ "user_id": bob, "role": "owner" }]));
    let mut both =
        vec![json!({ "user_id": eve, "role": "admin" }), json!({ "user_id": bob, "role": "owner" })];
    both.sort_by_key(|member| member["user_id"].to_string());
    assert_eq!(house.members(led).await, json!(both));
    assert_eq!(house.members(shared).await, json!([{ "user_id": eve, "role": "owner" }]));
    let sql = format!(
        "select user_id, paused, next_at is not null as fires from schedules where id = '{schedule}'"
    );
    assert_eq!(house.rows(&sql).await, json!([{ "user_id": bob, "paused": false, "fires": true }]));
    assert_eq!(house.rows("select 1 from api_keys").await, json!([]));
    assert_eq!(house.deeds().await, deeds, "as they were");
    // That she was deleted is told without her name.
    let told =
        house.rows("select before, after from audit where action in ('users.delete', 'users.erase')").await;
    assert_eq!(told.as_array().expect("rows").len(), 2);
    assert!(!told.to_string().contains("example.org"), "{told}");
    let left = job.result.expect("what it did");
    assert_eq!((&left["teamsHandedOver"], &left["memberships"]), (&json!(2), &json!(3)), "{left}");
    let gone =
        format!("select 1 from audit where user_id is distinct from '{ada}' and action = 'users.erase'");
    assert_eq!(house.rows(&gone).await.as_array().expect("rows").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_goes_unless_others_share_it() {
    let house = House::new().await;
    let dan = house.bed.person(house.bed.tenant, Role::User).await;
    let (bob, eve, dan_id) = (id(&house.bob), id(&house.eve), id(&dan));
    let alone = house.team(&[]).await;
    // The highest comes before who is in it for longer; of equals that decides.
    let led = house
        .team(&[(&house.eve, TeamRole::Member), (&house.bob, TeamRole::Admin), (&dan, TeamRole::Admin)])
        .await;
    // Who cannot sign in comes last.
    let disabled = house.team(&[(&dan, TeamRole::Admin), (&house.eve, TeamRole::Viewer)]).await;
    house
        .bed
        .execute(&format!(
            "update team_members set joined_at = now() - interval '1 day' where user_id = '{bob}'"
        ))
        .await;
    house.bed.execute(&format!("update users set active = false where id = '{dan_id}'")).await;
    house.schedule().await;

    let job = house.delete(Estate::Purge).await;
    assert_eq!(job.state, State::Succeeded, "{:?}", job.errors);
    assert_eq!(house.rows(&format!("select 1 from teams where id = '{alone}'")).await, json!([]));
    let owner = async |team: TeamId| {
        house
            .rows(&format!("select user_id from team_members where team_id = '{team}' and role = 'owner'"))
            .await
    };
    assert_eq!(owner(led).await, json!([{ "user_id": bob }]));
    assert_eq!(owner(disabled).await, json!([{ "user_id": eve }]));
    assert_eq!(house.rows("select 1 from schedules").await, json!([]));
    let told =
        house.rows("select action from audit where action in ('schedules.delete', 'teams.delete')").await;
    assert_eq!(told.as_array().expect("rows").len(), 2, "{told}");
}

/// Its jobs act with the rights of whoever has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_does_not_get_other_rights_unseen() {
    for (heir, paused) in [(Role::Operator, false), (Role::Owner, true), (Role::User, true)] {
        let house = House::new().await;
        let heir = house.bed.person(house.bed.tenant, heir).await;
        house.schedule().await;
        let job = house.delete(Estate::TransferTo(id(&heir))).await;
        assert_eq!(job.state, State::Succeeded, "{:?}", job.errors);
        let sql =
            "select user_id, paused, fire_at is null as rests, key_id is null as nobodys from schedules";
        let expected = json!([{ "user_id": id(&heir), "paused": paused, "rests": paused, "nobodys": true }]);
        assert_eq!(house.rows(sql).await, expected, "{:?}", heir.role);
        assert_eq!(
            house.bed.number("select count(*) from audit where action = 'schedules.hand_over'").await,
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_can_be_cancelled_taken_back_and_asked_for_again() {
    let house = House::new().await;
    let first = house.ask(&house.owner, &house.ada, Estate::Purge).await.expect("accepted");
    assert_eq!(house.ask(&house.owner, &house.ada, Estate::Purge).await.expect("the same"), first);
    let other = house.ask(&house.owner, &house.ada, Estate::TransferTo(id(&house.bob))).await;
    assert!(matches!(other, Err(Error::BeingDeleted(job)) if job == first), "{other:?}");
    let enable = ChangeUser { active: Some(true), ..ChangeUser::default() };
    let early = house.change(&house.ada, enable.clone()).await;
    assert!(matches!(early, Err(Error::BeingDeleted(_))), "{early:?}");

    let cancel = async |job: JobId| {
        let mut tx = house.bed.tx(&house.owner);
        jobs::cancel(&mut tx, job).await.expect("cancelled");
        tx.commit().await.expect("committed");
    };
    cancel(first).await;
    let second = house.ask(&house.owner, &house.ada, Estate::Purge).await.expect("another");
    assert_ne!(second, first);
    cancel(second).await;
    // Of the two that were cancelled the newer is meant; the older changes nothing any more.
    let retry = async |job: JobId| {
        let mut tx = house.bed.tx(&house.owner);
        jobs::retry(&mut tx, job).await.expect("retried");
        tx.commit().await.expect("committed");
        house.run(job).await
    };
    assert_eq!(retry(first).await.state, State::Succeeded);
    assert!(house.is_there(&house.ada).await);
    // Whoever may sign in again is not deleted by the newer either.
    house.change(&house.ada, enable.clone()).await.expect("let in again");
    assert_eq!(retry(second).await.state, State::Succeeded);
    assert!(house.is_there(&house.ada).await);
    assert_eq!(house.bed.number("select count(*) from users where active").await, 4);

    let third = house.ask(&house.owner, &house.ada, Estate::Purge).await.expect("another");
    assert_eq!(house.run(third).await.state, State::Succeeded);
    assert!(!house.is_there(&house.ada).await);
    let gone = house.ask(&house.owner, &house.ada, Estate::Purge).await;
    assert_eq!(gone.expect_err("gone").kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_heir_who_is_out_meanwhile_inherits_nothing() {
    let house = House::new().await;
    let team = house.team(&[]).await;
    let job =
        house.ask(&house.owner, &house.ada, Estate::TransferTo(id(&house.bob))).await.expect("accepted");
    let disable = ChangeUser { active: Some(false), ..ChangeUser::default() };
    house.change(&house.bob, disable).await.expect("disabled");
    let job = house.run(job).await;
    assert_eq!(job.state, State::Failed);
    assert_eq!(job.attempt, 1, "it would not get better");
    assert!(job.errors[0].message.contains("delete again with another"), "{:?}", job.errors);
    assert!(house.is_there(&house.ada).await);
    let again =
        house.ask(&house.owner, &house.ada, Estate::TransferTo(id(&house.eve))).await.expect("accepted");
    assert_eq!(house.run(again).await.state, State::Succeeded);
    assert_eq!(house.members(team).await, json!([{ "user_id": id(&house.eve), "role": "owner" }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_heir_who_is_a_viewer_meanwhile_inherits_nothing() {
    let house = House::new().await;
    house.team(&[]).await;
    let job =
        house.ask(&house.owner, &house.ada, Estate::TransferTo(id(&house.bob))).await.expect("accepted");
    let demote = ChangeUser { role: Some(Role::Viewer), ..ChangeUser::default() };
    house.change(&house.bob, demote).await.expect("demoted");
    let job = house.run(job).await;
    assert_eq!((job.state, job.attempt), (State::Failed, 1));
    assert!(job.errors[0].message.contains("a viewer; delete again with another"), "{:?}", job.errors);
    assert!(house.is_there(&house.ada).await);
}

/// Operators look after jobs, and not after people.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_delete_somebody_neither_stops_it_nor_begins_it_again() {
    let house = House::new().await;
    let (operator, admin) = (&house.bob, house.bed.person(house.bed.tenant, Role::Admin).await);
    let forbidden = |done: Result<(), jobs::Error>| {
        assert_eq!(done.expect_err("refused").kind(), ErrorKind::Forbidden);
    };
    let matching = async |who: &Actor, change: Change| {
        let mut tx = house.bed.tx(who);
        let changed = jobs::change_matching(&mut tx, change, &Filter::default()).await.expect("changed");
        tx.commit().await.expect("committed");
        assert_eq!(changed, Changed { changed: 0, job: None }, "{change:?} {:?}", who.role);
    };
    let cancel = async |who: &Actor, job: JobId| {
        let mut tx = house.bed.tx(who);
        jobs::cancel(&mut tx, job).await?;
        Ok(tx.commit().await?)
    };

    let job = house.ask(&house.owner, &house.ada, Estate::Purge).await.expect("accepted");
    forbidden(cancel(operator, job).await);
    // Each is somebody's, so none is one of many.
    for who in [operator, &admin, &house.owner] {
        matching(who, Change::Cancel).await;
    }
    cancel(&admin, job).await.expect("cancelled");

    forbidden(jobs::retry(&mut house.bed.tx(operator), job).await.map(drop));
    forbidden(jobs::delete(&mut house.bed.tx(operator), job).await);
    for who in [operator, &admin, &house.owner] {
        matching(who, Change::Retry).await;
        // Nor by the job that goes on with many.
        let all = kinds::Change { change: Change::Retry, filter: Filter::default(), after: None, changed: 0 };
        let mut tx = house.bed.tx(who);
        let going_on = queue::enqueue(&mut tx, all).await.expect("enqueued").id;
        tx.commit().await.expect("committed");
        let done = house.run(going_on).await;
        assert_eq!((done.state, done.result), (State::Succeeded, Some(json!({ "changed": 0 }))));
    }
    assert!(house.is_there(&house.ada).await);
    let mut tx = house.bed.tx(&admin);
    jobs::retry(&mut tx, job).await.expect("an admin's to begin again");
    tx.rollback().await.expect("rolled back");

    // Of an owner it is the owners'.
    let other = house.bed.person(house.bed.tenant, Role::Owner).await;
    let job = house.ask(&house.owner, &other, Estate::Purge).await.expect("accepted");
    forbidden(cancel(&admin, job).await);
    cancel(&house.owner, job).await.expect("cancelled");
    forbidden(jobs::retry(&mut house.bed.tx(&admin), job).await.map(drop));
    assert!(house.is_there(&other).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_inherits_who_could_not() {
    let house = House::new().await;
    let viewer = house.bed.person(house.bed.tenant, Role::Viewer).await;
    let stranger = house.bed.person(house.bed.other, Role::Owner).await;
    for heir in [id(&house.ada), id(&viewer), id(&stranger), UserId::new()] {
        let refused =
            house.ask(&house.owner, &house.ada, Estate::TransferTo(heir)).await.expect_err("refused");
        assert_eq!(refused.field().map(|(field, _)| field), Some("transferTo"), "{refused}");
    }
    assert_eq!(house.bed.number("select count(*) from jobs").await, 0);
    assert_eq!(house.bed.number("select count(*) from users where not active").await, 0);
}
