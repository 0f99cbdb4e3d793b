//! Requests to the API server, by resource rather than by Rust type, so that what a controller does
//! not know passes through it unharmed.

use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy, WatchParams,
};
use kube::core::Request;
use kube::core::Status;
use kube::core::watch::WatchEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::discovery::{Discovery, Served, served, stale};
use crate::model::{Key, Kind};

/// Field manager of all that these controllers write.
pub const MANAGER: &str = "gantry-controllers";

type Groups = Result<Vec<kube::core::discovery::v2::APIGroupDiscovery>, ApiError>;

/// A request that failed, with what it was to do.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct ApiError {
    operation: &'static str,
    path: String,
    #[source]
    source: Box<kube::Error>,
}

impl ApiError {
    /// The Status that the API server answered, if it answered.
    pub fn status(&self) -> Option<&Status> {
        match &*self.source {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn code(&self) -> u16 {
        self.status().map_or(0, |s| s.code)
    }

    pub fn not_found(&self) -> bool {
        self.code() == 404
    }

    /// 409: another write came first, or the uid is another object's.
    pub fn conflict(&self) -> bool {
        self.code() == 409 && !self.already_exists()
    }

    pub fn already_exists(&self) -> bool {
        self.status().is_some_and(|s| s.reason == "AlreadyExists")
    }

    /// 410: the resource version is too old to watch from.
    pub fn expired(&self) -> bool {
        self.code() == 410
    }

    /// The namespace is being deleted: whatever was to be created there is no longer wanted.
    pub fn namespace_terminating(&self) -> bool {
        self.status().is_some_and(|s| {
            s.code == 403
                && (s.message.contains("being terminated")
                    || s.details.as_ref().is_some_and(|d| {
                        d.causes.iter().any(|c| c.reason == "NamespaceTerminating")
                    }))
        })
    }

    /// The message for people: the server's if it answered.
    pub fn message(&self) -> String {
        match self.status() {
            Some(status) => status.message.clone(),
            None => self.source.to_string(),
        }
    }
}

/// One page of a list.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub struct Page<T> {
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default, deserialize_with = "crate::model::meta::nullable")]
    pub items: Vec<T>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    pub resource_version: String,
    #[serde(rename = "continue", deserialize_with = "crate::model::meta::nullable")]
    pub continue_token: String,
    /// How many objects come after this page, where the server says so.
    pub remaining_item_count: Option<u64>,
}

/// How and with what condition to delete.
#[derive(Debug, Clone, Default)]
pub struct Deletion<'a> {
    pub uid: Option<&'a str>,
    pub resource_version: Option<String>,
    pub propagation: Option<PropagationPolicy>,
    /// Seconds; `Some(0)` removes a pod at once.
    pub grace: Option<u32>,
}

impl<'a> Deletion<'a> {
    pub fn of(uid: &'a str) -> Self {
        Deletion {
            uid: Some(uid),
            ..Deletion::default()
        }
    }
}

/// The client of one cluster.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
}

impl Api {
    pub fn new(client: kube::Client) -> Self {
        Api { client }
    }

    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        params: &ListParams,
        metadata_only: bool,
    ) -> Result<Page<T>, ApiError> {
        let request = Request::new(path);
        let request = if metadata_only {
            request.list_metadata(params)
        } else {
            request.list(params)
        };
        let fail = failed("list", path);
        let request = request.map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        self.client.request(request).await.map_err(fail)
    }

    pub async fn watch<T: DeserializeOwned + Clone>(
        &self,
        path: &str,
        params: &WatchParams,
        version: &str,
        metadata_only: bool,
    ) -> Result<impl futures::Stream<Item = Result<WatchEvent<T>, ApiError>> + use<T>, ApiError>
    {
        let request = Request::new(path);
        let request = if metadata_only {
            request.watch_metadata(params, version)
        } else {
            request.watch(params, version)
        };
        let fail = failed("watch", path);
        let request = request.map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        let stream = self.client.request_events(request).await.map_err(fail)?;
        let path = path.to_owned();
        Ok(futures::StreamExt::map(stream, move |event| {
            event.map_err(failed("watch", &path))
        }))
    }

    /// `None` if there is no such object.
    pub async fn get<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        key: &Key,
    ) -> Result<Option<T>, ApiError> {
        self.get_at(&kind.path(&key.namespace), &key.name, false)
            .await
    }

    /// `None` if there is no such object in the collection `path`.
    pub async fn get_at<T: DeserializeOwned>(
        &self,
        path: &str,
        name: &str,
        metadata_only: bool,
    ) -> Result<Option<T>, ApiError> {
        let request = Request::new(path);
        let params = GetParams::default();
        let request = if metadata_only {
            request.get_metadata(name, &params)
        } else {
            request.get(name, &params)
        };
        let fail = failed("get", path);
        let request = request.map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        match self.client.request(request).await.map_err(fail) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the subresource `sub` of an object; `None` if there is no such object or subresource.
    pub async fn get_sub_at<T: DeserializeOwned>(
        &self,
        path: &str,
        name: &str,
        sub: &str,
    ) -> Result<Option<T>, ApiError> {
        let fail = failed("get subresource", path);
        let request = Request::new(path)
            .get_subresource(sub, name)
            .map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        match self.client.request(request).await.map_err(fail) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn create<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        namespace: &str,
        object: &Value,
    ) -> Result<T, ApiError> {
        let path = kind.path(namespace);
        let fail = failed("create", &path);
        let params = PostParams {
            field_manager: Some(MANAGER.into()),
            ..PostParams::default()
        };
        let body = serde_json::to_vec(object).map_err(|e| fail(kube::Error::SerdeError(e)))?;
        let request = Request::new(&*path)
            .create(&params, body)
            .map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        self.client.request(request).await.map_err(fail)
    }

    /// Creates at a subresource, as one asks for a token.
    pub async fn create_sub<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        key: &Key,
        sub: &str,
        object: &Value,
    ) -> Result<T, ApiError> {
        let path = kind.path(&key.namespace);
        let fail = failed("create subresource", &path);
        let body = serde_json::to_vec(object).map_err(|e| fail(kube::Error::SerdeError(e)))?;
        let request = Request::new(&*path)
            .create_subresource(sub, &key.name, &PostParams::default(), body)
            .map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        self.client.request(request).await.map_err(fail)
    }

    /// Reads whatever answers at `uri`, for APIs that are no collections of objects.
    pub async fn read<T: DeserializeOwned>(&self, uri: &str) -> Result<T, ApiError> {
        let fail = failed("read", uri);
        let request = http::Request::get(uri)
            .body(Vec::new())
            .map_err(|e| fail(kube::Error::HttpError(e)))?;
        self.client.request(request).await.map_err(fail)
    }

    /// How many objects there are in the collection `path`.
    pub async fn count(&self, path: &str) -> Result<usize, ApiError> {
        let mut params = ListParams::default().limit(1);
        let mut count = 0;
        loop {
            let page = self
                .list::<serde::de::IgnoredAny>(path, &params, true)
                .await?;
            count += page.items.len();
            if page.metadata.continue_token.is_empty() {
                return Ok(count);
            }
            if let Some(rest) = page.metadata.remaining_item_count {
                return Ok(count.saturating_add(usize::try_from(rest).unwrap_or(usize::MAX)));
            }
            params.continue_token = Some(page.metadata.continue_token);
            params.limit = Some(5000);
        }
    }

    /// Patches an object, or its subresource `sub`.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        key: &Key,
        sub: Option<&str>,
        patch: &Patch<Value>,
    ) -> Result<T, ApiError> {
        self.patch_at(&kind.path(&key.namespace), &key.name, sub, patch)
            .await
    }

    pub async fn patch_at<T: DeserializeOwned>(
        &self,
        path: &str,
        name: &str,
        sub: Option<&str>,
        patch: &Patch<Value>,
    ) -> Result<T, ApiError> {
        let fail = failed("patch", path);
        let params = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        let request = Request::new(path);
        let request = match sub {
            Some(sub) => request.patch_subresource(sub, name, &params, patch),
            None => request.patch(name, &params, patch),
        }
        .map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        self.client.request(request).await.map_err(fail)
    }

    /// Writes a whole subresource, for those that take nothing else.
    pub async fn replace_sub(
        &self,
        kind: &Kind,
        key: &Key,
        sub: &str,
        object: &Value,
    ) -> Result<(), ApiError> {
        let path = kind.path(&key.namespace);
        let fail = failed("replace", &path);
        let params = PostParams {
            field_manager: Some(MANAGER.into()),
            ..PostParams::default()
        };
        let body = serde_json::to_vec(object).map_err(|e| fail(kube::Error::SerdeError(e)))?;
        let request = Request::new(&*path)
            .replace_subresource(sub, &key.name, &params, body)
            .map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        self.client
            .request_text(request)
            .await
            .map(|_| ())
            .map_err(fail)
    }

    /// All that the server serves, one entry a resource, in the version that it prefers.
    ///
    /// # Errors
    /// Where any part of it could not be asked for.
    pub async fn discover(&self) -> Result<Vec<Served>, ApiError> {
        let (core, groups) = self.ask_what_is_served().await;
        Ok(served(core?.into_iter().chain(groups?)))
    }

    /// What could be discovered, and what could not.
    pub async fn discover_what_is_there(&self) -> Discovery {
        let mut found = Vec::new();
        let mut failures = Vec::new();
        let (core, groups) = self.ask_what_is_served().await;
        for (part, answer) in [("v1", core), ("apis", groups)] {
            match answer {
                Ok(groups) => found.extend(groups),
                Err(error) => failures.push((part.to_owned(), error.message())),
            }
        }
        failures.extend(stale(&found));
        Discovery {
            served: served(found),
            failures,
        }
    }

    async fn ask_what_is_served(&self) -> (Groups, Groups) {
        let core = self.client.list_core_api_versions_aggregated().await;
        let groups = self.client.list_api_groups_aggregated().await;
        (
            core.map(|l| l.items).map_err(failed("discover", "/api")),
            groups.map(|l| l.items).map_err(failed("discover", "/apis")),
        )
    }

    /// Deletes an object; one that is not there (any more) counts as deleted: `Ok(false)`.
    pub async fn delete(
        &self,
        kind: &Kind,
        key: &Key,
        deletion: Deletion<'_>,
    ) -> Result<bool, ApiError> {
        self.delete_at(&kind.path(&key.namespace), &key.name, deletion)
            .await
    }

    pub async fn delete_at(
        &self,
        path: &str,
        name: &str,
        deletion: Deletion<'_>,
    ) -> Result<bool, ApiError> {
        let fail = failed("delete", path);
        let params = DeleteParams {
            grace_period_seconds: deletion.grace,
            propagation_policy: deletion.propagation,
            preconditions: (deletion.uid.is_some() || deletion.resource_version.is_some()).then(
                || Preconditions {
                    uid: deletion.uid.map(str::to_owned),
                    resource_version: deletion.resource_version,
                },
            ),
            ..DeleteParams::default()
        };
        let request = Request::new(path)
            .delete(name, &params)
            .map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        match self.client.request_text(request).await.map_err(fail) {
            Ok(_) => Ok(true),
            Err(error) if error.not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes all objects of the collection `path`, and what they own in the background.
    pub async fn delete_collection(&self, path: &str) -> Result<(), ApiError> {
        let fail = failed("delete collection", path);
        let request = Request::new(path)
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .map_err(|e| fail(kube::Error::BuildRequest(e)))?;
        self.client
            .request_text(request)
            .await
            .map(|_| ())
            .map_err(fail)
    }
}

fn failed(operation: &'static str, path: &str) -> impl Fn(kube::Error) -> ApiError + use<> {
    let path = path.to_owned();
    move |source| ApiError {
        operation,
        path: path.clone(),
        source: Box::new(source),
    }
}

/// A merge patch of `status` that can only hit the object with this uid.
pub fn status_patch(uid: &str, status: Value) -> Patch<Value> {
    Patch::Merge(serde_json::json!({"metadata": {"uid": uid}, "status": status}))
}

/// `n`, or null (which removes the field in a merge patch) where Kubernetes leaves zero out.
pub fn or_null(n: i32) -> Value {
    if n == 0 { Value::Null } else { n.into() }
}
