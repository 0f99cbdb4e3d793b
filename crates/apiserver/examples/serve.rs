//! A bare API server for tests by hand: no controllers, objects in memory.
//!
//! `cargo run -p gantry-apiserver --example serve -- [--port N] [--token-file FILE] [--data DIR]`
//! prints the URL and the token of an administrator; a given token file is read, or written when
//! it does not exist.

use std::{error::Error, net::Ipv4Addr, path::PathBuf};

use gantry_apiserver::{Authentication, Config, Server, StaticToken};
use gantry_store::{Options, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut port = 0;
    let mut token_file: Option<PathBuf> = None;
    let mut data: Option<PathBuf> = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or("every option takes a value")?;
        match arg.as_str() {
            "--port" => port = value.parse()?,
            "--token-file" => token_file = Some(value.into()),
            "--data" => data = Some(value.into()),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let token = match &token_file {
        Some(file) if file.exists() => std::fs::read_to_string(file)?.trim().to_owned(),
        _ => uuid::Uuid::new_v4().to_string(),
    };
    if let Some(file) = token_file.filter(|f| !f.exists()) {
        std::fs::write(file, &token)?;
    }
    let store = match &data {
        Some(dir) => Store::open(dir, Options::default())?,
        None => Store::in_memory(Options::default()),
    };
    let config = Config {
        address: (Ipv4Addr::LOCALHOST, port).into(),
        cert_dir: data.map(|d| d.join("pki")),
        authentication: Authentication {
            tokens: vec![StaticToken {
                token: token.clone(),
                user: "admin".to_owned(),
                uid: "admin".to_owned(),
                groups: vec!["system:masters".to_owned()],
            }],
            ..Authentication::default()
        },
        // As the recorded conversations were held.
        allow_privileged: false,
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    let server = Server::start(config, store).await?;
    println!("https://{} {token}", server.address());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
