package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// What a client does, the same in every SDK; ../python/scenarios.py and the others say the same.
func client(words []string) error {
	options := flag.NewFlagSet("client", flag.ExitOnError)
	transport := options.String("transport", "", "http or http2, which TLS agrees on")
	truthFile := options.String("truth", "", "file for the account of what was done")
	scenario := options.String("scenario", "", "what to do")
	url := options.String("url", "", "where the server listens")
	calls := options.Int("calls", 10, "how many calls")
	mode := options.String("mode", "auto", "auto or legacy")
	options.Parse(words)

	truth, err := newTruth(*truthFile, *transport)
	if err != nil {
		return err
	}
	wire := &http.Transport{Protocols: new(http.Protocols)}
	wire.Protocols.SetHTTP1(*transport == "http")
	wire.Protocols.SetHTTP2(*transport == "http2")
	sdk := mcp.NewClient(&mcp.Implementation{Name: "peer", Version: "1"}, nil)
	sdk.AddSendingMiddleware(truth.ofSession)
	var session mcp.ClientSessionOptions
	if *mode == "legacy" {
		session.ProtocolVersion = "2025-11-25"
	}
	ctx := context.Background()
	there, err := sdk.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:     *url,
		HTTPClient:   &http.Client{Transport: truth.onTheWire(wire)},
		MaxEventSize: -1,
	}, &session)
	if err != nil {
		return err
	}
	if err := run(ctx, there, *scenario, *calls); err != nil {
		return err
	}
	return there.Close()
}

func run(ctx context.Context, session *mcp.ClientSession, scenario string, calls int) error {
	call := func(name string, arguments map[string]any) {
		_, err := session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: arguments})
		answered(err)
	}
	echo := func(text string) { call("echo", map[string]any{"text": text}) }
	kind, value, _ := strings.Cut(scenario, ":")
	switch kind {
	case "basic":
		basic(ctx, session, call, echo)
	case "calls":
		for number := range calls {
			echo(fmt.Sprint("call ", number))
		}
	case "parallel":
		var all sync.WaitGroup
		for number := range calls {
			all.Go(func() { echo(fmt.Sprint("call ", number)) })
		}
		all.Wait()
	case "large":
		call("big", map[string]any{"bytes": 300 << 10})
		call("big", map[string]any{"bytes": 10 << 20})
		echo(strings.Repeat("x", 300<<10))
		echo("after")
	case "slow":
		var seconds float64
		fmt.Sscan(value, &seconds)
		call("slow", map[string]any{"seconds": seconds})
	case "hang":
		call("slow", map[string]any{"seconds": 3600})
	case "session":
		for number := range calls {
			echo(fmt.Sprint("call ", number))
			time.Sleep(200 * time.Millisecond)
		}
	case "crash":
		echo("before")
		call("crash", map[string]any{})
	default:
		return fmt.Errorf("unknown scenario %s", scenario)
	}
	return nil
}

func basic(ctx context.Context, session *mcp.ClientSession, call func(string, map[string]any), echo func(string)) {
	_, err := session.ListTools(ctx, nil)
	answered(err)
	echo("hello — grüß dich")
	call("add", map[string]any{"a": 2, "b": 3})
	call("fail", map[string]any{"reason": "asked to"})
	call("no_such_tool", map[string]any{})
	resources, err := session.ListResources(ctx, nil)
	answered(err)
	if err == nil && len(resources.Resources) > 0 {
		_, err = session.ReadResource(ctx, &mcp.ReadResourceParams{URI: resources.Resources[0].URI})
		answered(err)
	}
	_, err = session.ListPrompts(ctx, nil)
	answered(err)
	_, err = session.GetPrompt(ctx, &mcp.GetPromptParams{Name: "greet", Arguments: map[string]string{"name": "Ada"}})
	answered(err)
	if session.InitializeResult().ProtocolVersion < "2026" {
		answered(session.Ping(ctx, nil))
	}
}

// A refusal is part of the scenario: the truth has noted it.
func answered(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "answered:", err)
	}
}
