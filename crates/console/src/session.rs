//! Who is logged in. Sessions live in memory: their credentials are never written anywhere.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine as _;
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::{Client, Config};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    access::Rights,
    credential::{self, Credential},
    error::Fail,
    oidc::{Entered, Provider},
    prefs::cookie,
};

/// Name of the session's cookie.
pub const COOKIE: &str = "__Host-gantry-session";
/// A session ends after this long, whatever happens in it.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// And after this long without a request.
const IDLE: Duration = Duration::from_secs(2 * 3600);
/// How often the hub is asked whether the credential still holds.
const RECHECK: Duration = Duration::from_secs(60);
/// Attempts to log in that have not succeeded, of one address within [`LOGIN_WINDOW`].
const LOGINS: usize = 10;
const LOGIN_WINDOW: Duration = Duration::from_secs(60);
/// Sessions at once; the one used longest ago gives way.
const SESSIONS: usize = 10_000;

/// Hash of a session's id or of a bearer token: what is kept of it.
type Mark = [u8; 32];

fn mark(kind: &str, secret: &str) -> Mark {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(kind.as_bytes());
    context.update(b"\0");
    context.update(secret.as_bytes());
    let mut mark = [0; 32];
    mark.copy_from_slice(context.finish().as_ref());
    mark
}

/// 256 random bits as text.
pub fn random() -> Result<String, Fail> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Fail::Upstream("no random numbers".to_owned()))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether two secrets are the same, in a time that tells nothing.
pub fn same(a: &str, b: &str) -> bool {
    constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// One logged-in person or script.
pub struct Session {
    /// Who the hub says they are.
    pub user: UserInfo,
    /// The hub, as they.
    pub client: Client,
    /// What a form must carry back.
    pub csrf: String,
    /// Whether it came with a bearer token: no cookie, so nothing to forge.
    pub bearer: bool,
    /// What the hub has said they may do.
    pub rights: Rights,
    /// What the last write came to, for the next page to say.
    pub told: Mutex<Option<String>>,
    /// Cancelled when it ends: what goes on beside requests (open pages, logs, terminals) ends with it.
    pub ended: CancellationToken,
    born: Instant,
    used: Mutex<Instant>,
    checked: Mutex<Instant>,
    members: Mutex<HashMap<String, Client>>,
    /// How the identity provider let them in, and when.
    entered: Option<(Entered, Instant)>,
    /// Held by the request that renews it.
    renewing: tokio::sync::Mutex<()>,
    /// The same session with a newer credential.
    successor: Mutex<Option<Arc<Session>>>,
}

impl Session {
    pub(crate) fn new(user: UserInfo, client: Client, bearer: bool) -> Result<Self, Fail> {
        let now = Instant::now();
        Ok(Self {
            user,
            client,
            csrf: random()?,
            bearer,
            rights: Rights::default(),
            told: Mutex::default(),
            ended: CancellationToken::new(),
            born: now,
            used: Mutex::new(now),
            checked: Mutex::new(now),
            members: Mutex::default(),
            entered: None,
            renewing: tokio::sync::Mutex::default(),
            successor: Mutex::default(),
        })
    }

    /// The session with its newest credential.
    pub fn latest(self: &Arc<Self>) -> Arc<Self> {
        let mut newest = self.clone();
        loop {
            let next = newest.successor.lock().clone();
            match next {
                Some(next) => newest = next,
                None => return newest,
            }
        }
    }

    /// When its credential is to be renewed, and when that has expired.
    fn due(&self) -> Option<(Instant, Instant)> {
        let (entered, born) = self.entered.as_ref()?;
        Some(entered.due(*born))
    }

    /// Their name.
    pub fn name(&self) -> &str {
        self.user.username.as_deref().unwrap_or_default()
    }

    /// What tells apart whoever may see different things.
    pub fn identity(&self) -> String {
        format!(
            "{}\u{0}{:?}\u{0}{:?}",
            self.name(),
            self.user.groups,
            self.user.extra
        )
    }

    fn over(&self, now: Instant) -> bool {
        now.duration_since(self.born) > LIFE || now.duration_since(*self.used.lock()) > IDLE
    }

    /// A client of a member that acts as they: what they may do there is the member's to say.
    ///
    /// # Errors
    /// If the member's access is of no use.
    pub fn on_member(&self, member: &str, access: Config) -> Result<Client, Fail> {
        if let Some(client) = self.members.lock().get(member) {
            return Ok(client.clone());
        }
        let mut config = access;
        config.auth_info.impersonate = Some(self.name().to_owned());
        config
            .auth_info
            .impersonate_groups
            .clone_from(&self.user.groups);
        let client = Client::try_from(config).map_err(|e| Fail::Upstream(e.to_string()))?;
        self.members
            .lock()
            .insert(member.to_owned(), client.clone());
        Ok(client)
    }
}

/// All sessions, and the brake on logins.
#[derive(Default)]
pub struct Sessions {
    /// Who renews credentials, where there is somebody.
    provider: Option<Arc<Provider>>,
    all: Mutex<HashMap<Mark, Arc<Session>>>,
    logins: Mutex<HashMap<IpAddr, VecDeque<Instant>>>,
    /// Bearer tokens that are being looked into: of requests that come at once with one, the first asks
    /// and the others wait, so that they are one attempt.
    entering: Mutex<HashMap<Mark, Arc<tokio::sync::Mutex<()>>>>,
}

impl Sessions {
    /// With the identity provider, where there is one.
    pub fn new(provider: Option<Arc<Provider>>) -> Self {
        Self {
            provider,
            ..Self::default()
        }
    }

    /// Logs in whom the identity provider let in; the session's id, for the cookie.
    ///
    /// # Errors
    /// If the hub knows nobody by it, or there were too many attempts.
    pub async fn enter(
        &self,
        entered: Entered,
        hub: &Config,
        peer: Option<IpAddr>,
    ) -> Result<(String, Arc<Session>), Fail> {
        self.brake(peer, Instant::now())?;
        let client = entered.credential.client(hub)?;
        let user = credential::who(&client).await?;
        self.release(peer);
        let mut session = Session::new(user, client, false)?;
        session.entered = Some((entered, Instant::now()));
        self.add(session)
    }

    /// Logs in; the session's id, for the cookie.
    ///
    /// # Errors
    /// If the hub knows nobody by it, or there were too many attempts.
    pub async fn login(
        &self,
        credential: &Credential,
        hub: &Config,
        peer: Option<IpAddr>,
    ) -> Result<(String, Arc<Session>), Fail> {
        self.brake(peer, Instant::now())?;
        let client = credential.client(hub)?;
        let user = credential::who(&client).await?;
        self.release(peer);
        self.open(user, client)
    }

    /// A session for someone who is known to be who they are.
    ///
    /// # Errors
    /// Without random numbers.
    pub fn open(&self, user: UserInfo, client: Client) -> Result<(String, Arc<Session>), Fail> {
        self.add(Session::new(user, client, false)?)
    }

    fn add(&self, session: Session) -> Result<(String, Arc<Session>), Fail> {
        let session = Arc::new(session);
        let id = random()?;
        self.put(mark("cookie", &id), session.clone());
        Ok((id, session))
    }

    fn put(&self, mark: Mark, session: Arc<Session>) {
        let now = Instant::now();
        let mut all = self.all.lock();
        all.retain(|_, s| {
            let over = s.over(now);
            if over {
                s.ended.cancel();
            }
            !over
        });
        if all.len() >= SESSIONS {
            let oldest = all
                .iter()
                .min_by_key(|(_, s)| *s.used.lock())
                .map(|(m, _)| *m);
            if let Some(session) = oldest.and_then(|oldest| all.remove(&oldest)) {
                session.ended.cancel();
            }
        }
        all.insert(mark, session);
    }

    fn end(&self, mark: &Mark) {
        if let Some(session) = self.all.lock().remove(mark) {
            session.ended.cancel();
        }
    }

    /// Takes back what `brake` has counted: an attempt that succeeded was nobody's guess.
    fn release(&self, peer: Option<IpAddr>) {
        let mut logins = self.logins.lock();
        if let Some(times) = peer.and_then(|peer| logins.get_mut(&peer)) {
            times.pop_back();
        }
    }

    /// Lets a login attempt through, or not.
    pub fn brake(&self, peer: Option<IpAddr>, now: Instant) -> Result<(), Fail> {
        let Some(peer) = peer else { return Ok(()) };
        let mut logins = self.logins.lock();
        logins.retain(|_, times| {
            times
                .back()
                .is_some_and(|t| now.duration_since(*t) < LOGIN_WINDOW)
        });
        let times = logins.entry(peer).or_default();
        while times
            .front()
            .is_some_and(|t| now.duration_since(*t) >= LOGIN_WINDOW)
        {
            times.pop_front();
        }
        if times.len() >= LOGINS {
            return Err(Fail::TooMany);
        }
        times.push_back(now);
        Ok(())
    }

    /// The session of a request: by its cookie or its bearer token.
    ///
    /// # Errors
    /// If there is none, or its credential no longer holds.
    pub async fn of(
        &self,
        headers: &HeaderMap,
        hub: &Config,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Session>, Fail> {
        if let Some(token) = bearer(headers) {
            return self.of_token(token, hub, peer).await;
        }
        let id = cookie(headers, COOKIE).ok_or(Fail::Login)?;
        self.current(mark("cookie", id), hub).await
    }

    async fn of_token(
        &self,
        token: &str,
        hub: &Config,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Session>, Fail> {
        let mark = mark("bearer", token);
        if self.all.lock().contains_key(&mark) {
            return self.current(mark, hub).await;
        }
        let turn = self.entering.lock().entry(mark).or_default().clone();
        let entered = {
            let _mine = turn.lock().await;
            let known = self.all.lock().get(&mark).cloned();
            match known {
                Some(session) => Ok(session),
                None => self.enter_by_token(mark, token, hub, peer).await,
            }
        };
        let mut entering = self.entering.lock();
        // Two: the table's own, and this request's.
        if Arc::strong_count(&turn) <= 2 {
            entering.remove(&mark);
        }
        entered
    }

    async fn enter_by_token(
        &self,
        mark: Mark,
        token: &str,
        hub: &Config,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Session>, Fail> {
        self.brake(peer, Instant::now())?;
        let client = Credential::Token(token.to_owned()).client(hub)?;
        let user = credential::who(&client).await?;
        self.release(peer);
        let session = Arc::new(Session::new(user, client, true)?);
        self.put(mark, session.clone());
        Ok(session)
    }

    async fn current(&self, mark: Mark, hub: &Config) -> Result<Arc<Session>, Fail> {
        let now = Instant::now();
        let mut session = self.all.lock().get(&mark).cloned().ok_or(Fail::Login)?;
        if session.over(now) {
            self.end(&mark);
            return Err(Fail::Login);
        }
        if session.due().is_some_and(|(due, _)| due <= now) {
            session = self.renewed(mark, session, hub).await?;
        }
        *session.used.lock() = now;
        let due = {
            let mut checked = session.checked.lock();
            let due = now.duration_since(*checked) > RECHECK;
            if due {
                *checked = now;
            }
            due
        };
        if due && matches!(credential::who(&session.client).await, Err(Fail::Login)) {
            self.end(&mark);
            return Err(Fail::Login);
        }
        Ok(session)
    }

    /// The session with a new credential; the old one, as long as that is good and no other is to be had.
    async fn renewed(
        &self,
        mark: Mark,
        session: Arc<Session>,
        hub: &Config,
    ) -> Result<Arc<Session>, Fail> {
        let _turn = session.renewing.lock().await;
        let latest = session.latest();
        if !Arc::ptr_eq(&latest, &session) {
            return Ok(latest);
        }
        match self.anew(&session, hub).await {
            Ok(new) => {
                let new = Arc::new(new);
                let mut all = self.all.lock();
                // Logged out meanwhile: it stays so.
                *all.get_mut(&mark).ok_or(Fail::Login)? = new.clone();
                drop(all);
                *session.successor.lock() = Some(new.clone());
                Ok(new)
            }
            Err(_) if session.due().is_some_and(|(_, end)| Instant::now() < end) => {
                Ok(session.clone())
            }
            Err(_) => {
                self.end(&mark);
                Err(Fail::Login)
            }
        }
    }

    async fn anew(&self, session: &Session, hub: &Config) -> Result<Session, Fail> {
        let provider = self.provider.as_ref().ok_or(Fail::Login)?;
        let (old, _) = session.entered.as_ref().ok_or(Fail::Login)?;
        let entered = provider.renew(old).await?;
        let client = entered.credential.client(hub)?;
        let user = credential::who(&client).await?;
        if user.username != session.user.username {
            return Err(Fail::Login);
        }
        let now = Instant::now();
        Ok(Session {
            csrf: session.csrf.clone(),
            told: Mutex::new(session.told.lock().take()),
            ended: session.ended.clone(),
            born: session.born,
            entered: Some((entered, now)),
            ..Session::new(user, client, false)?
        })
    }

    /// Ends the session of a request.
    pub fn logout(&self, headers: &HeaderMap) {
        if let Some(id) = cookie(headers, COOKIE) {
            self.end(&mark("cookie", id));
        }
    }
}

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then_some(token.trim())
}

/// The cookie that carries a session's id.
pub fn set_cookie(id: &str) -> String {
    format!("{COOKIE}={id}; Path=/; Secure; HttpOnly; SameSite=Strict")
}

/// The cookie that takes it away.
pub fn clear_cookie() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_slowed_by_address() {
        let sessions = Sessions::default();
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        for _ in 0..LOGINS {
            assert_eq!(sessions.brake(Some(one), start), Ok(()));
        }
        assert_eq!(sessions.brake(Some(one), start), Err(Fail::TooMany));
        sessions.release(Some(one));
        assert_eq!(sessions.brake(Some(one), start), Ok(()));
        assert_eq!(sessions.brake(Some(one), start), Err(Fail::TooMany));
        assert_eq!(sessions.brake(Some(two), start), Ok(()));
        assert_eq!(sessions.brake(Some(one), start + LOGIN_WINDOW), Ok(()));
    }

    #[test]
    fn ids_are_long_and_cookies_are_closed() {
        let (a, b) = (random().unwrap(), random().unwrap());
        assert!(a.len() == 43 && a != b);
        assert!(same(&a, &a.clone()) && !same(&a, &b));
        for part in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(set_cookie(&a).contains(part) && clear_cookie().contains(part));
        }
    }
}
