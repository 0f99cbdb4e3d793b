//! OpenAPI documents, made when first asked for and kept until the resources change.

use std::sync::Arc;

use gantry_machinery::status::Failure;
use http::HeaderMap;

use crate::{api::Api, respond::Reply};

#[derive(Default)]
pub struct Cache;

pub fn serve(_api: &Arc<Api>, _path: &str, _headers: &HeaderMap) -> Option<Result<Reply, Failure>> {
    None
}
