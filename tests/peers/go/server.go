package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// An MCP server: its tools are those of the other SDKs' servers.
func server(words []string) error {
	options := flag.NewFlagSet("server", flag.ExitOnError)
	transport := options.String("transport", "", "http or http2, which TLS agrees on")
	port := options.Int("port", 0, "where to listen")
	certificate := options.String("cert", "", "file with the certificate")
	key := options.String("key", "", "file with its key")
	options.Parse(words)

	sdk := mcp.NewServer(&mcp.Implementation{Name: "peer", Version: "1"}, nil)
	furnish(sdk)
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return sdk }, nil)
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	site := http.Server{Handler: handler, Protocols: new(http.Protocols)}
	site.Protocols.SetHTTP1(true)
	site.Protocols.SetHTTP2(*transport == "http2")
	fmt.Fprintln(os.Stderr, "ready")
	return site.ServeTLS(listener, *certificate, *key)
}

type text struct {
	Text string `json:"text"`
}

type numbers struct {
	A int `json:"a"`
	B int `json:"b"`
}

type reason struct {
	Reason string `json:"reason"`
}

type seconds struct {
	Seconds float64 `json:"seconds"`
}

type size struct {
	Bytes int `json:"bytes"`
}

func furnish(sdk *mcp.Server) {
	tool(sdk, "echo", func(_ context.Context, in text) string { return in.Text })
	tool(sdk, "add", func(_ context.Context, in numbers) string { return fmt.Sprint(in.A + in.B) })
	tool(sdk, "slow", func(ctx context.Context, in seconds) string {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(in.Seconds * float64(time.Second))):
		}
		return "done"
	})
	tool(sdk, "big", func(_ context.Context, in size) string { return strings.Repeat("x", in.Bytes) })
	tool(sdk, "crash", func(context.Context, struct{}) string {
		os.Exit(3)
		return ""
	})
	mcp.AddTool(sdk, &mcp.Tool{Name: "fail"},
		func(_ context.Context, _ *mcp.CallToolRequest, in reason) (*mcp.CallToolResult, any, error) {
			return nil, nil, fmt.Errorf("%s", in.Reason)
		})
	sdk.AddResource(&mcp.Resource{URI: "test://greeting", Name: "greeting"},
		func(_ context.Context, request *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
			contents := []*mcp.ResourceContents{{URI: request.Params.URI, Text: "hello"}}
			return &mcp.ReadResourceResult{Contents: contents}, nil
		})
	arguments := []*mcp.PromptArgument{{Name: "name", Required: true}}
	sdk.AddPrompt(&mcp.Prompt{Name: "greet", Arguments: arguments},
		func(_ context.Context, request *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			greeting := &mcp.TextContent{Text: fmt.Sprintf("Greet %s.", request.Params.Arguments["name"])}
			return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: greeting}}}, nil
		})
}

// tool adds a tool that answers with a text.
func tool[In any](sdk *mcp.Server, name string, work func(context.Context, In) string) {
	mcp.AddTool(sdk, &mcp.Tool{Name: name},
		func(ctx context.Context, _ *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: work(ctx, in)}}}, nil, nil
		})
}
