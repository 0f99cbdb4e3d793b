//! What Prometheus' HTTP API answers to an instant query (`/api/v1/query`), read into one number.

use serde_json::Value;

/// The number that `body` holds. `Err` says why there is none: an error of the server's, no sample, or
/// several.
pub fn read(body: &[u8]) -> Result<f64, String> {
    let value: Value =
        serde_json::from_slice(body).map_err(|_| "the answer is no JSON".to_owned())?;
    if value["status"] != "success" {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let (kind, error) = (text("errorType"), text("error"));
        return Err(if error.is_empty() {
            "the answer is not of Prometheus' HTTP API".to_owned()
        } else {
            format!("{kind}: {error}")
        });
    }
    let data = &value["data"];
    let sample = match data["resultType"].as_str() {
        Some("scalar") => &data["result"],
        Some("vector") => match data["result"].as_array().map(Vec::as_slice) {
            Some([one]) => &one["value"],
            Some([]) => return Err("the query finds nothing".to_owned()),
            Some(many) => {
                return Err(format!(
                    "the query finds {} series: aggregate them to one",
                    many.len()
                ));
            }
            None => return Err("the answer has no result".to_owned()),
        },
        other => {
            return Err(format!(
                "the query yields a {}, not one number",
                other.unwrap_or("thing without type")
            ));
        }
    };
    // Numbers come as text, or NaN and infinities could not be told.
    let text = sample[1].as_str().unwrap_or_default();
    text.parse()
        .map_err(|_| format!("the sample {sample} has no value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (body, want) in [
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"0.25"]}]}}"#,
                Ok(0.25),
            ),
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"3"]}}"#,
                Ok(3.0),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"+Inf"]}]}}"#,
                Ok(f64::INFINITY),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
                Err("the query finds nothing"),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"1"]},{"value":[1,"2"]}]}}"#,
                Err("the query finds 2 series: aggregate them to one"),
            ),
            (
                r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
                Err("the query yields a matrix, not one number"),
            ),
            (
                r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#,
                Err("bad_data: parse error"),
            ),
            ("{}", Err("the answer is not of Prometheus' HTTP API")),
            ("<html>", Err("the answer is no JSON")),
        ] {
            assert_eq!(read(body.as_bytes()), want.map_err(str::to_owned), "{body}");
        }
    }
}
