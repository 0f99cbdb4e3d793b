//! Pages: from a view to HTML. Every part of a page that can change has an id and is sent alone when it
//! does.

mod create;
pub mod edit;
pub mod events;
mod fleet;
pub mod frame;
pub mod group;
mod groups;
pub mod hooks;
mod instance;
mod lines;
pub mod login;
mod nodes;
pub mod placement;
pub mod plan;
pub mod policies;
pub mod quotas;
pub mod records;
mod release;
mod releases;
pub mod revisions;
mod scale;
pub mod settings;
mod terminal;
#[cfg(test)]
mod tests;
mod topology;
pub mod widgets;
pub mod wishes;

use maud::Markup;

use crate::{
    act::edit::Target,
    app::Cx,
    error::Fail,
    model::{Key, Topic},
    routes,
    view::Params,
};

pub use create::{
    form as create_form, objects as create_objects, parse as create_parse, sync as create_sync,
};
pub use instance::{reader, seen as instance_seen};
pub use nodes::seen as node_seen;
pub use release::{columns as release_columns, seen as release_seen};

/// Where a page stands in the navigation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nav {
    /// Nowhere.
    #[default]
    None,
    /// Fleet.
    Fleet,
    /// Services.
    Services,
    /// Releases.
    Releases,
    /// Nodes.
    Nodes,
    /// Records.
    Records,
    /// Stopped lines.
    Lines,
    /// Placement policies.
    Policies,
    /// Quotas.
    Quotas,
    /// Settings.
    Settings,
}

/// Which changes a page shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Interest {
    /// None: it does not change by itself.
    #[default]
    Nothing,
    /// Clusters, Groups, releases, nodes, lines.
    Fleet,
    /// Groups and releases.
    Services,
    /// Releases.
    Releases,
    /// One Group, its instances and releases.
    Group(Key),
    /// One release, and its Group's instances.
    Release(Key, Key),
    /// Nodes and what runs on them.
    Nodes,
    /// Lines.
    Lines,
    /// Placement policies.
    Policies,
    /// Quotas.
    Quotas,
    /// Notification hooks.
    Hooks,
}

impl Interest {
    /// Whether a change is among them.
    pub fn concerns(&self, topic: &Topic) -> bool {
        match (self, topic) {
            (Self::Nothing, _) => false,
            (_, Topic::All) => true,
            (Self::Fleet, topic) => {
                !matches!(topic, Topic::Policies | Topic::Quotas | Topic::Hooks)
            }
            (Self::Services, Topic::Group(_) | Topic::Release(_) | Topic::Tenant(_)) => true,
            (Self::Releases, Topic::Release(_)) => true,
            (Self::Group(key), Topic::Group(other)) => key == other,
            (Self::Group(key), Topic::Release(other)) => key.0 == other.0,
            (Self::Group(key), Topic::Tenant(tenant)) => key.0 == *tenant,
            (Self::Release(_, group), Topic::Group(other)) => group == other,
            (Self::Release(key, _), Topic::Release(other)) => key == other,
            (Self::Release(..), Topic::Lines) => true,
            (Self::Nodes, Topic::Nodes(_) | Topic::Cluster(_) | Topic::Group(_)) => true,
            (Self::Lines, Topic::Lines)
            | (Self::Policies, Topic::Policies)
            | (Self::Quotas, Topic::Quotas)
            | (Self::Hooks, Topic::Hooks) => true,
            _ => false,
        }
    }
}

/// A piece of a page.
pub enum Block {
    /// What changes as one.
    Part {
        /// Its id.
        id: String,
        /// Its class.
        class: &'static str,
        /// What is in it.
        html: Markup,
    },
    /// Parts that stand together.
    Group {
        /// Its id.
        id: String,
        /// Its class.
        class: &'static str,
        /// What is in it.
        blocks: Vec<Block>,
    },
}

impl Block {
    /// A part.
    pub fn part(id: impl Into<String>, class: &'static str, html: Markup) -> Self {
        Self::Part {
            id: id.into(),
            class,
            html,
        }
    }

    /// Parts that stand together.
    pub fn group(id: impl Into<String>, class: &'static str, blocks: Vec<Self>) -> Self {
        Self::Group {
            id: id.into(),
            class,
            blocks,
        }
    }
}

/// A page.
#[derive(Default)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// Where it stands in the navigation.
    pub nav: Nav,
    /// What is above it: text and place.
    pub crumbs: Vec<(String, String)>,
    /// Its parts.
    pub body: Vec<Block>,
    /// Which changes it shows.
    pub interest: Interest,
}

/// What was just made and the model does not know yet is waited for so long.
const SOON: std::time::Duration = std::time::Duration::from_secs(5);

/// What `find` finds in the model; where it is not there, and the hub says to the user that it is, as soon as the model
/// has heard of it.
///
/// # Errors
/// If there is none.
async fn soon<K, T>(
    cx: &Cx,
    (tenant, name): (&str, &str),
    find: impl Fn() -> Option<T>,
) -> Result<T, Fail>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    if let Some(found) = find() {
        return Ok(found);
    }
    let api: kube::Api<K> = kube::Api::namespaced(cx.session.client.clone(), tenant);
    api.get_metadata(name).await?;
    let wait = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            if let Some(found) = find() {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(SOON, wait).await;
    found.map_err(|_| Fail::NotFound)
}

/// The page of a path.
///
/// # Errors
/// If there is none, or none that the user may see: the same.
pub async fn find(cx: &Cx, path: &str, params: &Params) -> Result<Page, Fail> {
    if !routes::known(routes::PAGES, path) {
        return Err(Fail::NotFound);
    }
    let path: Vec<&str> = path.trim_matches('/').split('/').collect();
    match path.as_slice() {
        [""] | ["fleet"] => fleet::page(cx, params).await,
        ["services"] => groups::page(cx, params, "", "").await,
        ["services", tenant] => groups::page(cx, params, tenant, "").await,
        ["services", tenant, app] => groups::page(cx, params, tenant, app).await,
        ["groups", tenant, name] => group::page(cx, params, tenant, name).await,
        ["groups", tenant, name, "release"] => plan::page(cx, params, tenant, name, None).await,
        ["groups", tenant, name, "scale"] => scale::page(cx, tenant, name).await,
        ["groups", tenant, name, "instances"] => wishes::confirm(cx, params, tenant, name).await,
        ["releases"] => releases::page(cx, params).await,
        ["releases", tenant, name] => release::page(cx, params, tenant, name).await,
        ["releases", tenant, name, action] => release::confirm(cx, tenant, name, action).await,
        ["instances", cluster, tenant, name] => {
            instance::page(cx, params, cluster, tenant, name).await
        }
        ["nodes"] => nodes::list(cx, params).await,
        ["nodes", cluster, name] => nodes::one(cx, params, cluster, name).await,
        ["nodes", cluster, name, action] => nodes::confirm(cx, cluster, name, action).await,
        ["lines"] => lines::page(cx).await,
        ["records"] => records::page(cx, params).await,
        ["create"] => create::page(cx, params).await,
        ["create", "policy"] => policies::create(cx, params, None).await,
        ["policies"] => policies::list(cx, params).await,
        ["policies", cluster, name] => policies::one(cx, cluster, name, None).await,
        ["policies", cluster, name, "delete"] => policies::confirm(cx, cluster, name).await,
        ["quotas"] => quotas::list(cx, params).await,
        ["quotas", cluster, tenant, kind, name] => {
            let target = Target::quota(cluster, tenant, kind, name).ok_or(Fail::NotFound)?;
            quotas::one(cx, &target, None).await
        }
        ["tenants", name] => quotas::one(cx, &Target::tenant(name), None).await,
        ["settings"] => settings::page(cx, None).await,
        ["notifications"] => hooks::list(cx, params).await,
        ["notifications", tenant, name] => hooks::one(cx, tenant, name, None).await,
        ["create", "notification"] => hooks::create(cx, params, None).await,
        _ => Err(Fail::NotFound),
    }
}
