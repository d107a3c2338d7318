// Ask for users over NATS: go mod init users && go mod tidy && go run .
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
)

// Asks on behalf of the user of a token or, without one, as this program itself.
func ask(nc *nats.Conn, subject, request, token string, reply any) error {
	sent := nats.Header{"Responder-Timeout-Ms": {"2000"}}
	if token != "" {
		sent.Set("Authorization", "Bearer "+token)
	}
	message := nats.Msg{Subject: subject, Data: []byte(request), Header: sent}
	answer, err := nc.RequestMsg(&message, nats.DefaultTimeout) // 2 s
	if err != nil {
		return err // nats.ErrNoResponders: no worker listens
	}
	if code := answer.Header.Get("Nats-Service-Error-Code"); code != "" {
		return fmt.Errorf("%s %s", code, answer.Header.Get("Nats-Service-Error"))
	}
	return json.Unmarshal(answer.Data, reply)
}

func main() {
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		panic(err)
	}
	var zoe struct{ Name, Email, OrgRole string } // and what else you need; null is ""
	err = ask(nc, "users.get", `{"id": "KbO8WbOTItGbdi0KY5YfJyfimmurNJra"}`, "", &zoe)
	fmt.Println(zoe.Name, zoe.Email, zoe.OrgRole, err)
	fmt.Println(ask(nc, "users.get", `{"id": "no such id"}`, os.Getenv("VIEWER"), &zoe))
}
