package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// truth is the client's own account of its requests: the same lines as ../python/truth.py writes. A request begins where the SDK
// hands it to HTTP, which alone knows its id, and ends where the SDK hands out its answer.
type truth struct {
	mutex sync.Mutex
	file  *os.File
	seq   int
}

// call is one request, carried by the context from the session to the wire.
type call struct {
	seq    int
	begun  bool
	status int
	// What a refusal's body says, if it says it in JSON-RPC.
	refusal *jsonrpc.Error
}

type callKey struct{}

func newTruth(path, transport string) (*truth, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	account := &truth{file: file}
	account.write(map[string]any{"event": "client", "pid": os.Getpid(), "sdk": "go-sdk 1.8.0", "transport": transport})
	return account, nil
}

func (t *truth) write(line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		fail(err)
	}
	// One system call a line: what the client does besides its calls is measured with them.
	if _, err := t.file.Write(append(text, '\n')); err != nil {
		fail(err)
	}
}

// ofSession notes the end of every request.
func (t *truth) ofSession(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
		noted := new(call)
		result, err := next(context.WithValue(ctx, callKey{}, noted), method, request)
		end := now()
		t.mutex.Lock()
		defer t.mutex.Unlock()
		if !noted.begun {
			return result, err
		}
		line := map[string]any{"event": "end", "seq": noted.seq, "outcome": "ok", "rpc_code": nil, "http_status": nil, "end_ns": end}
		refusal := noted.refusal
		if noted.status == 0 {
			errors.As(err, &refusal)
		} else {
			line["outcome"], line["http_status"] = "http_error", noted.status
		}
		if refusal != nil {
			line["outcome"], line["rpc_code"] = "rpc_error", refusal.Code
		} else if err != nil && noted.status == 0 {
			line["outcome"] = "server_gone"
		}
		if err != nil && method == "server/discover" {
			line["outcome"] = "negotiation"
		}
		if result, is := result.(*mcp.CallToolResult); is && err == nil && result.IsError {
			line["outcome"] = "tool_error"
		}
		t.write(line)
		return result, err
	}
}

type wire struct {
	truth *truth
	next  http.RoundTripper
}

func (t *truth) onTheWire(next http.RoundTripper) http.RoundTripper { return &wire{t, next} }

// RoundTrip notes the beginning of a request, and its refusal.
func (w *wire) RoundTrip(request *http.Request) (*http.Response, error) {
	noted, _ := request.Context().Value(callKey{}).(*call)
	if noted == nil || request.Method != http.MethodPost {
		return w.next.RoundTrip(request)
	}
	body, err := request.GetBody()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	var message struct {
		ID     any    `json:"id"`
		Method string `json:"method"`
		Params struct {
			Name any `json:"name"`
		} `json:"params"`
	}
	if json.Unmarshal(text, &message) == nil && message.ID != nil && message.Method != "" {
		w.truth.begin(noted, map[string]any{"event": "begin", "method": message.Method, "name": message.Params.Name, "id": message.ID})
	}
	response, err := w.next.RoundTrip(request)
	if err == nil && response.StatusCode >= 400 {
		text, _ := io.ReadAll(response.Body)
		response.Body = io.NopCloser(bytes.NewReader(text))
		var said struct {
			Error *jsonrpc.Error `json:"error"`
		}
		json.Unmarshal(text, &said)
		noted.status, noted.refusal = response.StatusCode, said.Error
	}
	return response, err
}

func (t *truth) begin(noted *call, line map[string]any) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	noted.seq, noted.begun = t.seq, true
	t.seq++
	line["seq"], line["start_ns"] = noted.seq, now()
	t.write(line)
}

// now reads CLOCK_MONOTONIC, which package time does not give away.
func now() int64 {
	const clockMonotonic = 1
	var moment syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&moment)), 0)
	return moment.Nano()
}
