// Go with nats.go's micro and pgx's pool: a goroutine for each request, which takes a connection.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log"
	"os"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

type request struct {
	ID, Email, OrganizationID string
	IDs                       []string
	Limit                     int
}

type failure struct {
	Code string `json:"code"`
}

var (
	ctx      = context.Background()
	pool     *pgxpool.Pool
	notFound = failure{"not_found"}
)

func get(asked request) (any, error)     { return one(getSQL, asked.ID) }
func byEmail(asked request) (any, error) { return one(byEmailSQL, asked.Email) }

func one(sql, key string) (any, error) {
	var found user
	err := pool.QueryRow(ctx, sql, key).Scan(found.columns()...)
	if errors.Is(err, pgx.ErrNoRows) {
		return notFound, nil
	}
	return found, err
}

func getMany(asked request) (any, error) {
	rows, err := all((*user).columns, getManySQL, asked.IDs)
	found := make(map[string]user, len(rows))
	for _, row := range rows {
		found[row.ID] = row
	}
	reply := batch{Users: []user{}, Missing: []string{}}
	seen := make(map[string]bool, len(asked.IDs))
	for _, id := range asked.IDs {
		if seen[id] {
			continue
		}
		seen[id] = true
		if row, ok := found[id]; ok {
			reply.Users = append(reply.Users, row)
		} else {
			reply.Missing = append(reply.Missing, id)
		}
	}
	return reply, err
}

func orgList(asked request) (any, error) {
	rows, err := all((*member).columns, orgListSQL, asked.OrganizationID, asked.Limit)
	reply := page{Users: []user{}}
	if len(rows) > asked.Limit {
		rows = rows[:asked.Limit]
		last := rows[asked.Limit-1]
		reply.NextCursor = cursor(asked.OrganizationID, last.since, last.memberID)
	}
	for _, row := range rows {
		reply.Users = append(reply.Users, row.user)
	}
	return reply, err
}

func memberships(asked request) (any, error) {
	rows, err := all((*membership).columns, membershipsSQL, asked.ID, asked.Limit)
	if err == nil && len(rows) == 0 {
		return notFound, nil
	}
	if len(rows) == 1 && rows[0].OrganizationID == nil {
		rows = rows[:0]
	}
	reply := membershipPage{Memberships: rows}
	if len(rows) > asked.Limit {
		reply.Memberships = rows[:asked.Limit]
		last := rows[asked.Limit-1]
		reply.NextCursor = cursor(asked.ID, last.CreatedAt.Time.String(), *last.memberID)
	}
	return reply, err
}

func cursor(place ...string) *string {
	text, _ := json.Marshal(place)
	encoded := base64.RawURLEncoding.EncodeToString(text)
	return &encoded
}

func all[T any](columns func(*T) []any, sql string, arguments ...any) ([]T, error) {
	rows, err := pool.Query(ctx, sql, arguments...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := []T{}
	for rows.Next() {
		var row T
		if err := rows.Scan(columns(&row)...); err != nil {
			return nil, err
		}
		found = append(found, row)
	}
	return found, rows.Err()
}

func serve(nc *nats.Conn, lookup string, answer func(request) (any, error)) {
	handle := func(message *micro.Request) {
		asked := request{Limit: 100}
		err := json.Unmarshal(message.Data(), &asked)
		var reply any
		if err == nil {
			reply, err = answer(asked)
		}
		if err != nil {
			log.Print(err)
			reply = failure{"internal"}
		}
		if err := message.RespondJSON(reply); err != nil {
			log.Print(err)
		}
	}
	// In this version of nats.go a service has one endpoint.
	_, err := micro.AddService(nc, micro.Config{
		Name:    "go-" + lookup,
		Version: "1.0.0",
		Endpoint: micro.Endpoint{
			Subject: "go." + lookup,
			Handler: func(message *micro.Request) { go handle(message) },
		},
	})
	check(err)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	check(err)
	// For `get`, 4 were slower where many requests wait; 8, 16 and 32 could not be told apart.
	config.MaxConns = 16
	pool, err = pgxpool.ConnectConfig(ctx, config)
	check(err)
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	check(err)
	serve(nc, "get", get)
	serve(nc, "by_email", byEmail)
	serve(nc, "get_many", getMany)
	serve(nc, "org_list", orgList)
	serve(nc, "memberships", memberships)
	select {}
}
