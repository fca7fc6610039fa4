//! The endpoints: `/metrics` and `/health`, for Prometheus and for whoever restarts us.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::health::Health;
use super::prometheus::{Exposition, Filter};

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to say what it wants, from connecting or from its last answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the listener rests after an error (too many open files).
const REST: Duration = Duration::from_millis(100);

/// What the endpoints show.
#[derive(Clone)]
pub struct Endpoints {
    /// `/metrics`.
    pub exposition: Exposition,
    /// `/health`.
    pub health: Arc<Health>,
}

impl Endpoints {
    /// Serves for ever.
    pub async fn serve(self, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let endpoints = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answer = endpoints.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(slot);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let known = matches!(
            request.uri().path(),
            "/metrics" | "/health" | "/health/live" | "/health/ready"
        );
        if !known {
            return failure(
                StatusCode::NOT_FOUND,
                "no such path; there are /metrics, /health, /health/live, /health/ready",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match (request.uri().path(), parameters(request.uri().query())) {
            (_, Err(reason)) => failure(StatusCode::BAD_REQUEST, &reason),
            ("/metrics", Ok(parameters)) => self.metrics(parameters),
            (_, Ok(parameters)) if !parameters.is_empty() => failure(StatusCode::BAD_REQUEST, "no parameters here"),
            ("/health/ready", Ok(_)) => verdict(self.health.unready()),
            (_, Ok(_)) => verdict(self.health.dead()),
        }
    }

    fn metrics(&self, parameters: Vec<(String, String)>) -> Response<Full<Bytes>> {
        let mut filter = Filter::default();
        for (name, value) in parameters {
            let slot = match name.as_str() {
                "capability" => &mut filter.capability,
                "namespace" => &mut filter.namespace,
                _ => {
                    return failure(
                        StatusCode::BAD_REQUEST,
                        "unknown parameter; allowed: capability, namespace",
                    );
                }
            };
            if value.is_empty() || slot.replace(value).is_some() {
                return failure(
                    StatusCode::BAD_REQUEST,
                    &format!("{name}: exactly one value that is not empty"),
                );
            }
        }
        respond(StatusCode::OK, prometheus::TEXT_FORMAT, self.exposition.render(&filter))
    }
}

fn verdict(trouble: Option<String>) -> Response<Full<Bytes>> {
    match trouble {
        None => respond(StatusCode::OK, JSON, r#"{"status":"ok"}"#.to_owned()),
        Some(reason) => {
            let body = serde_json::json!({ "status": "unavailable", "reason": reason });
            respond(StatusCode::SERVICE_UNAVAILABLE, JSON, body.to_string())
        }
    }
}

const JSON: &str = "application/json";

fn failure(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    respond(status, JSON, serde_json::json!({ "reason": reason }).to_string())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Names and values of a query, decoded.
fn parameters(query: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// Undoes percent-encoding, and `+` for a blank as forms have it.
fn decoded(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is not percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2).ok_or_else(bad)?;
                rest = behind;
                let digits = std::str::from_utf8(digits)
                    .ok()
                    .filter(|digits| !digits.starts_with('+'))
                    .ok_or_else(bad)?;
                u8::from_str_radix(digits, 16).map_err(|_| bad())?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::Timestamp;
    use crate::sink::clock::Anchor;
    use crate::sink::prometheus::Metrics;
    use crate::sink::samples;
    use std::time::UNIX_EPOCH;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: std::net::SocketAddr, method: &str, target: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn status(answer: &str) -> u16 {
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn every_path_method_and_parameter_has_its_status() {
        let mut metrics = Metrics::new(10_000);
        metrics.take(
            &samples::call(|_| ()),
            &Anchor::new(Timestamp(0), UNIX_EPOCH),
            Timestamp(1),
        );
        let health = Arc::new(Health::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoints = Endpoints {
            exposition: metrics.exposition(),
            health: Arc::clone(&health),
        };
        tokio::spawn(endpoints.serve(listener));

        for (method, target, expected) in [
            ("GET", "/metrics", 200),
            ("HEAD", "/metrics", 200),
            ("GET", "/metrics?capability=weather&namespace=host", 200),
            ("GET", "/metrics?capability=a%2Fb", 200),
            ("GET", "/metrics?capability=", 400),
            ("GET", "/metrics?capability=a&capability=b", 400),
            ("GET", "/metrics?operation=a", 400),
            ("GET", "/metrics?capability=%zz", 400),
            ("GET", "/metrics?capability=%ff", 400),
            ("POST", "/metrics", 405),
            ("DELETE", "/health", 405),
            ("GET", "/health", 200),
            ("GET", "/health?x=1", 400),
            ("GET", "/health/live", 200),
            ("GET", "/health/ready", 503),
            ("GET", "/", 404),
            ("POST", "/api/v1/calls", 404),
        ] {
            let answer = ask(address, method, target).await;
            assert_eq!(status(&answer), expected, "{method} {target}: {answer}");
        }
        let refusal = ask(address, "GET", "/health/ready").await;
        assert!(
            refusal.contains("application/json") && refusal.contains("the probes are not attached yet"),
            "{refusal}"
        );
        assert!(ask(address, "POST", "/metrics").await.contains("allow: GET, HEAD"));
        health.set_obstacle(None);
        assert_eq!(status(&ask(address, "GET", "/health/ready").await), 200);

        let whole = ask(address, "GET", "/metrics").await;
        assert!(whole.contains("mcp_calls_total{") && whole.contains("mcp_observer_lost_total{"));
        let one = ask(address, "GET", "/metrics?capability=weather").await;
        assert!(one.contains("mcp_calls_total{") && !one.contains("mcp_observer_lost_total{"));
        let none = ask(address, "GET", "/metrics?capability=other").await;
        assert!(!none.contains("mcp_calls_total{"));
    }
}
