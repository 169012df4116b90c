//! As much of a browser as a sign-in needs: redirects, one at a time, and cookies.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

const MOST_REDIRECTS: usize = 20;

/// Keeps cookies by origin and path, over plain HTTP on loopback. It never closes, so neither
/// lifetimes nor `Secure` matter to it, as with real ones on this machine.
#[derive(Debug, Default)]
pub struct Browser {
    cookies: Mutex<Vec<Cookie>>,
    signs_in_as: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cookie {
    origin: String,
    path: String,
    name: String,
    value: String,
}

/// What was answered.
#[derive(Debug)]
pub struct Page {
    pub url: Url,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Page {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Where it sends the browser.
    pub fn location(&self) -> Option<Url> {
        (300..400).contains(&self.status).then(|| self.url.join(self.header("location")?).ok()).flatten()
    }
}

impl Browser {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of somebody whom `OidcProvider` is to sign in: it takes a hint where others show a page.
    pub fn of(person: &str) -> Self {
        Self { signs_in_as: Some(person.to_owned()), ..Self::default() }
    }

    pub async fn get(&self, url: &str) -> Result<Page> {
        self.send("GET", url, &[], "").await
    }

    /// Goes where it is sent, until a page is no redirect or sends to where `stop` says so.
    pub async fn visit(&self, url: &str, stop: impl Fn(&Url) -> bool) -> Result<Page> {
        let page = self.get(url).await?;
        self.follow(page, stop).await
    }

    /// The same from a page that it is on.
    pub async fn follow(&self, mut page: Page, stop: impl Fn(&Url) -> bool) -> Result<Page> {
        for _ in 0..MOST_REDIRECTS {
            match page.location() {
                Some(next) if !stop(&next) => page = self.get(self.hinted(next).as_str()).await?,
                _ => return Ok(page),
            }
        }
        bail!("more than {MOST_REDIRECTS} redirects, the last to {}", page.url)
    }

    pub async fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Page> {
        let url = Url::parse(url)?;
        let host = format!("{}:{}", url.host_str().context("a host")?, url.port().context("a port")?);
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        // Of 1.0: the answer ends with the connection.
        let mut request = format!("{method} {target} HTTP/1.0\r\nhost: {host}\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if let Some(cookies) = self.header_of(&url) {
            request += &format!("cookie: {cookies}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());

        let mut connection = TcpStream::connect(&host).await.with_context(|| format!("reaching {url}"))?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let page = read(url, &answer).with_context(|| format!("no HTTP answer: {answer}"))?;
        self.keep(&page);
        Ok(page)
    }

    /// The value of a cookie that `url` would be sent.
    pub fn cookie(&self, url: &str, name: &str) -> Option<String> {
        let url = Url::parse(url).ok()?;
        let cookies = self.cookies();
        cookies
            .iter()
            .find(|cookie| cookie.name == name && cookie.is_for(&url))
            .map(|cookie| cookie.value.clone())
    }

    fn header_of(&self, url: &Url) -> Option<String> {
        let cookies = self.cookies();
        let pairs: Vec<String> = cookies
            .iter()
            .filter(|cookie| cookie.is_for(url))
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn keep(&self, page: &Page) {
        for (_, line) in page.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let Some((new, gone)) = Cookie::read(&page.url, line) else { continue };
            let mut cookies = self.cookies();
            cookies.retain(|old| (&old.origin, &old.path, &old.name) != (&new.origin, &new.path, &new.name));
            if !gone {
                cookies.push(new);
            }
        }
    }

    fn hinted(&self, mut url: Url) -> Url {
        let asks = url.query_pairs().any(|(name, _)| name == "code_challenge");
        if let Some(person) = self.signs_in_as.as_ref().filter(|_| asks) {
            url.query_pairs_mut().append_pair("login_hint", person);
        }
        url
    }

    fn cookies(&self) -> MutexGuard<'_, Vec<Cookie>> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cookie {
    /// With whether it is taken back.
    fn read(url: &Url, line: &str) -> Option<(Self, bool)> {
        let mut parts = line.split(';').map(str::trim);
        let (name, value) = parts.next()?.split_once('=')?;
        let (mut path, mut gone) = ("/".to_owned(), value.is_empty());
        for (attribute, value) in parts.filter_map(|part| part.split_once('=')) {
            match attribute.to_ascii_lowercase().as_str() {
                "path" => value.clone_into(&mut path),
                "max-age" => gone |= value == "0",
                "expires" => gone |= value.contains(" 1970 "),
                _ => {}
            }
        }
        let origin = url.origin().ascii_serialization();
        Some((Self { origin, path, name: name.to_owned(), value: value.to_owned() }, gone))
    }

    fn is_for(&self, url: &Url) -> bool {
        self.origin == url.origin().ascii_serialization() && url.path().starts_with(&self.path)
    }
}

fn read(url: Url, answer: &str) -> Option<Page> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Page { url, status, headers, body: body.to_owned() })
}
