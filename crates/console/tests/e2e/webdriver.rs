//! A small WebDriver client: JSON over HTTP to chromedriver, which drives a headless Chromium.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Key of an element in WebDriver's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Whether this machine has what is needed; `GANTRY_REQUIRE_BROWSER=1` makes its absence a failure.
pub fn there() -> bool {
    let found = ["/usr/bin/chromium", "/usr/bin/chromedriver"]
        .iter()
        .all(|p| Path::new(p).exists());
    if !found {
        let word = "NO BROWSER: chromium and chromium-driver are not installed; what a browser does is NOT tested";
        assert!(
            std::env::var_os("GANTRY_REQUIRE_BROWSER").is_none_or(|v| v != "1"),
            "{word}"
        );
        eprintln!("\n*** {word} ***\n");
    }
    found
}

/// A browser.
pub struct Browser {
    driver: Child,
    /// The process of the browser itself.
    chromium: Option<u64>,
    port: u16,
    session: String,
    _folder: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its Chromium may outlive it, even where the session was closed.
        if let Some(chromium) = self.chromium {
            let end = format!("kill {chromium}");
            let _ = Command::new("sh")
                .args(["-c", &end])
                .stderr(Stdio::null())
                .status();
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// Starts one with a window of this size.
    pub async fn start(width: u32, height: u32) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = tempfile::tempdir().unwrap();
        let driver = Command::new("/usr/bin/chromedriver")
            .arg(format!("--port={port}"))
            // Both leave files where they are killed: they go with the folder.
            .env("TMPDIR", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Self {
            driver,
            chromium: None,
            port,
            session: String::new(),
            _folder: folder,
        };
        for _ in 0..100 {
            if browser
                .ask(Method::GET, "/status", Value::Null)
                .await
                .is_ok_and(|v| v["ready"] == true)
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let args = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", browser._folder.path().display()),
        ];
        let wish = json!({"capabilities": {"alwaysMatch": {"acceptInsecureCerts": true, "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": args}}}});
        let made = browser.ask(Method::POST, "/session", wish).await.unwrap();
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        browser.chromium = made["capabilities"]["goog:processID"].as_u64();
        browser
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .map_err(|e| e.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let body = if method == Method::GET {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let good = answer.status().is_success();
        let bytes = answer
            .into_body()
            .collect()
            .await
            .map_err(|e| e.to_string())?
            .to_bytes();
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if good {
            Ok(value["value"].clone())
        } else {
            Err(value["value"]["message"].as_str().unwrap_or("").to_owned())
        }
    }

    async fn command(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
            .await
    }

    /// Goes to a page.
    pub async fn go(&self, url: &str) {
        self.command(Method::POST, "/url", json!({"url": url}))
            .await
            .unwrap();
    }

    /// Runs a script; what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.command(
            Method::POST,
            "/execute/sync",
            json!({"script": script, "args": []}),
        )
        .await
        .unwrap()
    }

    /// Whether a script returns true within some time.
    async fn holds(&self, script: &str, within: Duration) -> bool {
        let wait = async {
            loop {
                // A page that is being left has no answer.
                let asked = self.command(
                    Method::POST,
                    "/execute/sync",
                    json!({"script": format!("return Boolean({script})"), "args": []}),
                );
                if asked.await.is_ok_and(|v| v == true) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(within, wait).await.is_ok()
    }

    /// Waits until a script returns true.
    pub async fn until(&self, what: &str, script: &str) {
        if self.holds(script, Duration::from_secs(90)).await {
            return;
        }
        let text = self.run("return document.body.innerText").await;
        let seen = std::env::temp_dir().join("gantry-console-failed.png");
        let _ = std::fs::write(&seen, self.picture().await);
        panic!(
            "{what}: not within 90s; seen in {}; the page says:\n{}",
            seen.display(),
            text.as_str().unwrap_or("")
        );
    }

    /// Presses keys that may be pressed again until a script returns true: a page that has just
    /// come up on a busy machine may not have the keyboard yet.
    pub async fn press(&self, keys: &[&str], what: &str, script: &str) {
        for _ in 0..10 {
            self.keys(keys).await;
            if self.holds(script, Duration::from_secs(4)).await {
                return;
            }
        }
        self.until(what, script).await;
    }

    async fn element(&self, css: &str) -> String {
        for _ in 0..100 {
            let found = self
                .command(
                    Method::POST,
                    "/element",
                    json!({"using": "css selector", "value": css}),
                )
                .await;
            if let Some(id) = found
                .ok()
                .and_then(|v| v[ELEMENT].as_str().map(str::to_owned))
            {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "no {css} on {}",
            self.run("return location.href + ' ' + document.body.innerText")
                .await
        );
    }

    /// Clicks what a selector finds.
    pub async fn click(&self, css: &str) {
        for _ in 0..20 {
            let id = self.element(css).await;
            if self
                .command(Method::POST, &format!("/element/{id}/click"), json!({}))
                .await
                .is_ok()
            {
                return;
            }
            // It was replaced, or something was before it, while the page changed.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("cannot click {css}");
    }

    /// Writes into a field, after what is there was taken away.
    pub async fn fill(&self, css: &str, text: &str) {
        let id = self.element(css).await;
        self.command(Method::POST, &format!("/element/{id}/clear"), json!({}))
            .await
            .unwrap();
        self.command(
            Method::POST,
            &format!("/element/{id}/value"),
            json!({"text": text}),
        )
        .await
        .unwrap();
    }

    /// Presses keys, wherever the focus is.
    pub async fn keys(&self, keys: &[&str]) {
        let mut actions = Vec::new();
        for key in keys {
            actions.push(json!({"type": "keyDown", "value": key}));
            if !matches!(*key, CONTROL) {
                actions.push(json!({"type": "keyUp", "value": key}));
            }
        }
        if keys.contains(&CONTROL) {
            actions.push(json!({"type": "keyUp", "value": CONTROL}));
        }
        let body = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.command(Method::POST, "/actions", body).await.unwrap();
    }

    /// Puts the pointer on a place of the window, and presses there if asked to.
    pub async fn point(&self, (x, y): (i64, i64), press: bool) {
        let mut actions = vec![json!({"type": "pointerMove", "x": x, "y": y, "duration": 0})];
        if press {
            actions.push(json!({"type": "pointerDown", "button": 0}));
            actions.push(json!({"type": "pointerUp", "button": 0}));
        }
        let body = json!({"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]});
        self.command(Method::POST, "/actions", body).await.unwrap();
    }

    /// Shows pages as for another medium (`print`; empty: the screen), for someone who wishes for less motion
    /// or not.
    pub async fn medium(&self, medium: &str, still: bool) {
        let motion = if still { "reduce" } else { "no-preference" };
        let params = json!({"media": medium, "features": [{"name": "prefers-reduced-motion", "value": motion}]});
        let body = json!({"cmd": "Emulation.setEmulatedMedia", "params": params});
        self.command(Method::POST, "/goog/cdp/execute", body)
            .await
            .unwrap();
    }

    /// The page as it would be printed, PDF.
    pub async fn print(&self) -> Vec<u8> {
        let text = self
            .command(Method::POST, "/print", json!({}))
            .await
            .unwrap();
        base64::engine::general_purpose::STANDARD
            .decode(text.as_str().unwrap())
            .unwrap()
    }

    /// What the browser has complained of.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self
            .command(Method::POST, "/se/log", json!({"type": "browser"}))
            .await
            .unwrap_or_default();
        let severe = log
            .as_array()
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .filter(|e| e["level"] == "SEVERE");
        severe
            .filter_map(|e| e["message"].as_str().map(str::to_owned))
            .collect()
    }

    /// A picture of the window, PNG.
    pub async fn picture(&self) -> Vec<u8> {
        let text = self
            .command(Method::GET, "/screenshot", Value::Null)
            .await
            .unwrap();
        base64::engine::general_purpose::STANDARD
            .decode(text.as_str().unwrap())
            .unwrap()
    }

    /// Another size of the window.
    pub async fn size(&self, width: u32, height: u32) {
        self.command(
            Method::POST,
            "/window/rect",
            json!({"width": width, "height": height}),
        )
        .await
        .unwrap();
    }

    /// Ends it.
    pub async fn close(self) {
        let _ = self.command(Method::DELETE, "", Value::Null).await;
    }
}

pub const CONTROL: &str = "\u{E009}";
pub const ENTER: &str = "\u{E007}";
pub const ESCAPE: &str = "\u{E00C}";
