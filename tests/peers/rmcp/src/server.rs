//! An MCP server on rmcp: see ../README.md for its tools and command line.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use clap::Parser;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResult, ContentBlock, ErrorData, ListResourcesResult, PaginatedRequestParams, ProgressNotificationParam,
    PromptMessage, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, Role,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{
    RoleServer, ServerHandler, ServiceExt, prompt, prompt_handler, prompt_router, schemars, tool, tool_handler, tool_router,
};
use serde::Deserialize;

#[derive(Parser)]
struct Arguments {
    #[arg(long, value_parser = ["stdio", "http", "http2"])]
    transport: String,
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Certificate and key of an `https` server.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Text {
    text: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Pair {
    a: i64,
    b: i64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Reason {
    reason: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Seconds {
    seconds: f64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Bytes {
    bytes: usize,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Name {
    name: String,
}

#[derive(Clone)]
struct Peer;

#[tool_router]
impl Peer {
    #[tool]
    fn echo(&self, Parameters(Text { text }): Parameters<Text>) -> String {
        text
    }

    #[tool]
    fn add(&self, Parameters(Pair { a, b }): Parameters<Pair>) -> String {
        (a + b).to_string()
    }

    #[tool]
    fn fail(&self, Parameters(Reason { reason }): Parameters<Reason>) -> CallToolResult {
        CallToolResult::error(vec![ContentBlock::text(reason)])
    }

    #[tool]
    async fn slow(
        &self,
        Parameters(Seconds { seconds }): Parameters<Seconds>,
        context: RequestContext<RoleServer>,
    ) -> String {
        if let Some(token) = context.meta.get_progress_token() {
            let _ = context.peer.notify_progress(ProgressNotificationParam::new(token, 0.0).with_total(1.0)).await;
        }
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        "done".to_owned()
    }

    #[tool]
    fn big(&self, Parameters(Bytes { bytes }): Parameters<Bytes>) -> String {
        "x".repeat(bytes)
    }

    #[tool]
    fn crash(&self) -> String {
        std::process::exit(3)
    }
}

#[prompt_router]
impl Peer {
    #[prompt]
    async fn greet(&self, Parameters(Name { name }): Parameters<Name>) -> Vec<PromptMessage> {
        vec![PromptMessage::new_text(Role::User, format!("Greet {name}."))]
    }
}

#[tool_handler]
#[prompt_handler(router = Self::prompt_router())]
impl ServerHandler for Peer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_prompts().enable_resources().build())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![Resource::new("test://greeting", "greeting")]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        Ok(ReadResourceResult::new(vec![ResourceContents::text("hello", request.uri)]).into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Arguments::parse();
    if args.transport == "stdio" {
        Peer.serve(rmcp::transport::stdio()).await?.waiting().await?;
        return Ok(());
    }
    let config = StreamableHttpServerConfig::default().with_max_request_body_bytes(64 << 20);
    let service: StreamableHttpService<Peer, LocalSessionManager> =
        StreamableHttpService::new(|| Ok(Peer), Default::default(), config);
    let service = axum::Router::new().nest_service("/mcp", service).into_make_service();
    let listener = TcpListener::bind((args.host.as_str(), args.port))?;
    listener.set_nonblocking(true)?;
    // Whether a connection is HTTP/2, its first bytes say, or what TLS agreed on.
    if let (Some(cert), Some(key)) = (args.cert, args.key) {
        rustls::crypto::ring::default_provider().install_default().expect("nobody else chose");
        let tls = RustlsConfig::from_pem_file(cert, key).await?;
        eprintln!("ready");
        axum_server::from_tcp_rustls(listener, tls)?.serve(service).await?;
    } else {
        eprintln!("ready");
        axum_server::from_tcp(listener)?.serve(service).await?;
    }
    Ok(())
}
