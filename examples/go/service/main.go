// Who answers, what, and how often: go mod init service && go mod tidy && go run .
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

type worker struct {
	micro.Ping
	Endpoints []struct {
		Name, Subject string
		NumRequests   int `json:"num_requests"`
	}
}

func main() {
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		panic(err)
	}
	for _, verb := range []micro.Verb{micro.PingVerb, micro.InfoVerb, micro.StatsVerb} {
		subject, _ := micro.ControlSubject(verb, "users", "")
		replies, _ := nc.SubscribeSync(nats.NewInbox())
		_ = nc.PublishRequest(subject, replies.Subject, nil)
		// Each worker answers; once none has for a second, all have.
		for reply, err := replies.NextMsg(time.Second); err == nil; reply, err = replies.NextMsg(time.Second) {
			var found worker
			_ = json.Unmarshal(reply.Data, &found)
			fmt.Println(verb, found.Name, found.Version, found.ID, found.Endpoints)
		}
	}
}
