//! Records for other programs: `GET /export/records.csv` and `.jsonl`, with the filters of the page, streamed
//! page by page, so that nothing is held in memory.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use gantry_records::{
    Filter, Page, Record, Records,
    export::{CSV_HEADER, csv_line, json_line},
};
use http::{HeaderValue, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;

use crate::{
    app::{App, Cx, peer},
    error::Fail,
    page::records::filter,
    view::Params,
};

/// Records that are read at a time.
const AT_A_TIME: u32 = 500;
/// Records of one file, at most: narrower filters lead to the rest.
const MOST: usize = 200_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Csv,
    Json,
}

impl Form {
    fn line(self, record: &Record) -> String {
        match self {
            Self::Csv => csv_line(record),
            Self::Json => json_line(record).unwrap_or_default(),
        }
    }
}

/// Answers with the file.
pub async fn records(
    State(app): State<Arc<App>>,
    Path(file): Path<String>,
    request: Request,
) -> Response {
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let (headers, peer) = (request.headers().clone(), peer(&request));
    drop(request);
    let opened = async {
        let (form, kind) = match file.as_str() {
            "records.csv" => (Form::Csv, "text/csv; charset=utf-8"),
            "records.jsonl" => (Form::Json, "application/jsonl"),
            _ => return Err(Fail::NotFound),
        };
        let cx = Cx::of(&app, &headers, peer).await?;
        let store = cx.app.records.clone().ok_or(Fail::NotFound)?;
        let filter = filter(&cx.sight.groups, &cx.prefs.zone, &params)?;
        Ok((body(store, filter, form), kind))
    };
    match opened.await {
        Ok((body, kind)) => {
            let mut response = body.into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{file}\"")) {
                headers.insert(header::CONTENT_DISPOSITION, name);
            }
            response
        }
        Err(fail) => {
            let status = if fail == Fail::Login {
                StatusCode::UNAUTHORIZED
            } else {
                fail.status()
            };
            (status, fail.detail().to_owned()).into_response()
        }
    }
}

struct Reading {
    store: Arc<dyn Records>,
    filter: Filter,
    form: Form,
    after: Option<String>,
    sent: usize,
    begun: bool,
    over: bool,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.over {
            return None;
        }
        let part = Page {
            limit: AT_A_TIME,
            after: self.after.take(),
        };
        let found = match self.store.query(&self.filter, &part).await {
            Ok(found) => found,
            Err(error) => {
                // Broken off, not ended: whoever reads it is to know.
                self.over = true;
                return Some(Err(std::io::Error::other(error.to_string())));
            }
        };
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) && self.form == Form::Csv {
            text.push_str(CSV_HEADER);
        }
        for record in &found.records {
            text.push_str(&self.form.line(record));
        }
        self.sent += found.records.len();
        self.after = found.next;
        self.over = self.after.is_none() || self.sent >= MOST;
        Some(Ok(Bytes::from(text)))
    }
}

fn body(store: Arc<dyn Records>, filter: Filter, form: Form) -> Body {
    let reading = Reading {
        store,
        filter,
        form,
        after: None,
        sent: 0,
        begun: false,
        over: false,
    };
    let frames = stream::unfold(reading, |mut reading| async move {
        let bytes = reading.next().await?;
        Some((bytes.map(Frame::data), reading))
    });
    Body::new(StreamBody::new(frames))
}
