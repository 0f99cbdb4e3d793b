//! A whole fleet with a console before it: a hub, two members of two cells, tenants `shop` and `bank`, and
//! someone who may see `shop` only. Also what the screenshots are taken of.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use gantry_api::{
    App, AppSpec, Cluster, ClusterSpec, Group, Release,
    cluster::{Access, Cell, KubeconfigSecret},
};
use gantry_apiserver::{OidcClaim, OidcIssuer};
use gantry_cluster::{EmbeddedCluster, NodeGroup};
use gantry_console::{Console, Options, Tls, model::State, oidc};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Namespace, Secret, ServiceAccount},
    rbac::v1::{ClusterRole, RoleBinding},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    config::KubeConfigOptions,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(90);

#[path = "provider.rs"]
pub mod provider;

use provider::Provider;

pub struct Stage {
    /// The identity provider that hub and console know.
    pub provider: Provider,
    /// Where the console listens, and with which certificate.
    tls: (PathBuf, PathBuf),
    records: std::sync::Arc<dyn gantry_records::Records>,
    pub hub: EmbeddedCluster,
    pub members: Vec<EmbeddedCluster>,
    pub console: Console,
    pub admin: String,
    pub dev: String,
    stop: CancellationToken,
    /// Certificate of the console, PEM.
    pub cert: String,
    _folder: tempfile::TempDir,
}

fn apply() -> PatchParams {
    PatchParams::apply("stage").force()
}

async fn put<K>(api: Api<K>, name: &str, object: Value)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.patch(name, &apply(), &Patch::Apply(object))
        .await
        .unwrap();
}

impl Stage {
    /// Starts everything, with so many nodes a cell.
    pub async fn start(nodes: u32) -> Self {
        let provider = Provider::start().await;
        let issuer = OidcIssuer {
            url: provider.url.clone(),
            ca_pem: Some(provider.ca.clone()),
            audiences: vec!["gantry-console".to_owned()],
            algorithms: vec!["ES256".to_owned()],
            username: OidcClaim::Named {
                name: "email".to_owned(),
                prefix: "oidc:".to_owned(),
            },
            groups: Some(OidcClaim::Named {
                name: "groups".to_owned(),
                prefix: "oidc:".to_owned(),
            }),
            ..OidcIssuer::default()
        };
        let hub = EmbeddedCluster::builder()
            .issuers(vec![issuer])
            .name("hub")
            .scheduler(false)
            .nodes(vec![])
            .start()
            .await
            .unwrap();
        let client = hub.client();
        gantry_hub::install(&client).await.unwrap();
        put(
            Api::<Namespace>::all(client.clone()),
            "gantry-system",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gantry-system"}}),
        )
        .await;
        let mut members = Vec::new();
        for (index, (name, region)) in [("sh", "shanghai"), ("bj", "beijing")]
            .into_iter()
            .enumerate()
        {
            let cells = [format!("{name}-a"), format!("{name}-b")];
            let groups = cells.iter().map(|cell| NodeGroup {
                cell: cell.clone(),
                region: region.into(),
                count: nodes,
                cpu: "16".into(),
                memory: "64Gi".into(),
                labels: [(
                    "example.com/pool",
                    if cell.ends_with("-a") {
                        "reserved"
                    } else {
                        "elastic"
                    },
                )]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
                ..NodeGroup::default()
            });
            let ranges = (
                format!("10.{}.0.0/16", 130 + index),
                format!("172.{}.0.0/16", 20 + index),
            );
            let builder = EmbeddedCluster::builder()
                .name(name)
                .seed(index as u64)
                .ranges(ranges)
                .nodes(groups.collect());
            let member = builder.start().await.unwrap();
            behave(&member.client()).await;
            gantry_scheduler::install(&member.client()).await.unwrap();
            register(&client, &member, name, region, &cells).await;
            members.push(member);
        }
        let stop = CancellationToken::new();
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("records.db").display().to_string();
        let records = gantry_records::open(&place).unwrap();
        let writing = gantry_records::writer::Options::default();
        let (writer, _) = gantry_records::Writer::start(records.clone(), &writing).unwrap();
        let options = gantry_hub::Options {
            records: Some(writer),
            ..gantry_hub::Options::default()
        };
        tokio::spawn(gantry_hub::run(client.clone(), options, stop.clone()));
        for tenant in ["shop", "bank"] {
            put(
                Api::<Namespace>::all(client.clone()),
                tenant,
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant}}),
            )
            .await;
        }
        let dev = developer(&client, "shop").await;
        let (cert, tls) = certificate(folder.path().to_owned());
        let address = "127.0.0.1:0".parse().unwrap();
        let console = console_options(&hub, &provider, &tls, &records, address).await;
        Self {
            console: Console::start(console).await.unwrap(),
            admin: hub.context().token,
            provider,
            tls,
            records,
            hub,
            members,
            dev,
            stop,
            cert,
            _folder: folder,
        }
    }

    pub fn client(&self) -> Client {
        self.hub.client()
    }

    /// A further console, over a model that only the test feeds.
    pub async fn with_state(&self, state: State) -> Console {
        let (hub, provider) = (&self.hub, &self.provider);
        let any = "127.0.0.1:0".parse().unwrap();
        let options = console_options(hub, provider, &self.tls, &self.records, any).await;
        Console::start_with(options, Some(state)).await.unwrap()
    }

    /// A further console before the same fleet, as after a restart.
    pub async fn another(&self, address: SocketAddr) -> Console {
        let (hub, provider) = (&self.hub, &self.provider);
        let options = console_options(hub, provider, &self.tls, &self.records, address).await;
        Console::start(options).await.unwrap()
    }

    /// An App with one Group in every cell.
    pub async fn service(&self, tenant: &str, app: &str, replicas: i32, more: Value) {
        let level = more["level"].as_str().unwrap_or("L2").to_owned();
        let (cpu, memory) = (
            more["cpu"].as_str().unwrap_or("500m"),
            more["memory"].as_str().unwrap_or("1Gi"),
        );
        let mut object = App::new(app, AppSpec::default());
        object.metadata.namespace = Some(tenant.to_owned());
        let mut object = serde_json::to_value(&object).unwrap();
        object["spec"] = json!({"level": level, "owners": [format!("{app}@example.com")], "ports": [{"name": "http", "port": 8080}],
            "container": {"lifecycle": {"drainSeconds": 0}}});
        put(Api::<App>::namespaced(self.client(), tenant), app, object).await;
        let name = format!("{app}-prod");
        let cells: Vec<Value> = ["sh-a", "sh-b", "bj-a", "bj-b"]
            .iter()
            .map(|c| json!({"name": c}))
            .collect();
        let group = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": name, "namespace": tenant},
            "spec": {"app": app, "environment": "prod", "replicas": replicas, "placement": {"cells": cells},
                "revision": {"image": format!("registry.example.com/{tenant}/{app}:1.4.2"),
                    "resources": {"requests": {"cpu": cpu, "memory": memory}}},
                "availability": {"maxUnavailable": "25%"}},
        });
        put(
            Api::<Group>::namespaced(self.client(), tenant),
            &name,
            group,
        )
        .await;
    }

    /// Waits until all instances of a Group are in service.
    pub async fn in_service(&self, tenant: &str, group: &str) {
        let api: Api<Group> = Api::namespaced(self.client(), tenant);
        until(&format!("{tenant}/{group} in service"), async || {
            let group = api.get(group).await.unwrap();
            group
                .status
                .is_some_and(|s| s.in_service == group.spec.replicas)
        })
        .await;
    }

    /// Starts a Group's first release with a strategy.
    pub async fn release(&self, tenant: &str, group: &str, tag: &str, strategy: Value) -> String {
        let name = format!("{group}-2");
        self.release_as(tenant, group, &name, tag, strategy).await;
        name
    }

    /// Starts a release of this name with a strategy.
    pub async fn release_as(
        &self,
        tenant: &str,
        group: &str,
        name: &str,
        tag: &str,
        strategy: Value,
    ) {
        let image = format!(
            "registry.example.com/{tenant}/{}:{tag}",
            group.trim_end_matches("-prod")
        );
        let release = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": {"name": name, "namespace": tenant},
            "spec": {"group": group, "revision": {"image": image}, "strategy": {"inline": strategy}, "requestedBy": "alice@example.com", "note": "faster checkout"}});
        let api = Api::<Release>::namespaced(self.client(), tenant);
        put(api, name, release).await;
    }

    /// Waits for a release to be so.
    pub async fn release_is(
        &self,
        tenant: &str,
        name: &str,
        what: &str,
        is: impl Fn(&Release) -> bool,
    ) -> Release {
        let api: Api<Release> = Api::namespaced(self.client(), tenant);
        until(&format!("release {tenant}/{name} {what}"), async || {
            is(&api.get(name).await.unwrap())
        })
        .await;
        api.get(name).await.unwrap()
    }

    pub async fn shutdown(self) {
        self.console.shutdown().await;
        self.stop.cancel();
        for member in self.members {
            member.shutdown().await;
        }
        self.hub.shutdown().await;
    }
}

async fn console_options(
    hub: &EmbeddedCluster,
    provider: &Provider,
    (cert, key): &(PathBuf, PathBuf),
    records: &std::sync::Arc<dyn gantry_records::Records>,
    address: SocketAddr,
) -> Options {
    let context = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(hub.kubeconfig(), &context);
    Options {
        address,
        tls: Tls::Files(cert.clone(), key.clone()),
        hub: config.await.unwrap(),
        client: Some(hub.client()),
        door: true,
        records: Some(records.clone()),
        oidc: Some(oidc::Options {
            issuer: provider.url.clone(),
            client_id: "gantry-console".to_owned(),
            client_secret: None,
            ca_pem: Some(provider.ca.clone()),
            scopes: vec!["email".to_owned()],
            url: None,
        }),
    }
}

/// Waits for a condition.
pub async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let wait = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "{what}: not within {PATIENCE:?}"
    );
}

/// Images tagged `broken` never become ready.
async fn behave(member: &Client) {
    let rules = "- image: \"*broken*\"\n  ready: never\n  message: connection refused\n";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hollow-behaviours"}, "data": {"rules.yaml": rules}});
    put(
        Api::<ConfigMap>::namespaced(member.clone(), "kube-system"),
        "hollow-behaviours",
        map,
    )
    .await;
}

async fn register(
    hub: &Client,
    member: &EmbeddedCluster,
    name: &str,
    region: &str,
    cells: &[String],
) {
    let kubeconfig = serde_saphyr::to_string(&member.kubeconfig()).unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "gantry-system"}, "stringData": {"kubeconfig": kubeconfig}});
    put(
        Api::<Secret>::namespaced(hub.clone(), "gantry-system"),
        name,
        secret,
    )
    .await;
    let secret = KubeconfigSecret {
        namespace: "gantry-system".into(),
        name: name.into(),
        key: "kubeconfig".into(),
    };
    let spec = ClusterSpec {
        region: region.into(),
        access: Access {
            kubeconfig_secret: Some(secret),
        },
        cells: cells
            .iter()
            .map(|c| Cell {
                name: c.clone(),
                ..Cell::default()
            })
            .collect(),
        stop_the_line: None,
    };
    put(
        Api::<Cluster>::all(hub.clone()),
        name,
        serde_json::to_value(Cluster::new(name, spec)).unwrap(),
    )
    .await;
}

/// A token of someone who may do everything of Gantry's in one tenant, and see nothing else.
async fn developer(hub: &Client, tenant: &str) -> String {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "gantry-developer"}, "rules": [
        {"apiGroups": ["gantry.dev"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["", "apps"], "resources": ["pods", "pods/log", "events", "controllerrevisions"], "verbs": ["get", "list", "watch"]},
    ]});
    put(
        Api::<ClusterRole>::all(hub.clone()),
        "gantry-developer",
        role,
    )
    .await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "dev", "namespace": tenant}});
    let accounts: Api<ServiceAccount> = Api::namespaced(hub.clone(), tenant);
    put(accounts.clone(), "dev", account).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "dev", "namespace": tenant},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "gantry-developer"},
        "subjects": [{"kind": "ServiceAccount", "name": "dev", "namespace": tenant},
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "oidc:people"}]});
    put(
        Api::<RoleBinding>::namespaced(hub.clone(), tenant),
        "dev",
        binding,
    )
    .await;
    let request = TokenRequest {
        spec: Some(TokenRequestSpec::default()),
        ..TokenRequest::default()
    };
    let token = accounts
        .create_token_request("dev", &PostParams::default(), &request)
        .await
        .unwrap();
    token.status.unwrap().token.unwrap_or_default()
}

fn certificate(folder: PathBuf) -> (String, (PathBuf, PathBuf)) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params
        .subject_alt_names
        .push(rcgen::SanType::IpAddress("127.0.0.1".parse().unwrap()));
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap().pem();
    let (cert_file, key_file) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&cert_file, &cert).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    (cert, (cert_file, key_file))
}

/// Names of a tenant's releases.
pub async fn release_names(client: &Client, tenant: &str) -> Vec<String> {
    let api: Api<Release> = Api::namespaced(client.clone(), tenant);
    let list = api.list(&kube::api::ListParams::default()).await.unwrap();
    list.items.iter().map(ResourceExt::name_any).collect()
}
