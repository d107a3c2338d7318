# Ask for users with the nats CLI, which reads NATS_URL: bash users.sh
token="Authorization: Bearer $VIEWER"
zoe=KbO8WbOTItGbdi0KY5YfJyfimmurNJra lumen=9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud # of the demo

nats req users.get $zoe
nats req users.get '{"id": "'$zoe'", "organizationId": "'$lumen'"}'
nats req users.by_email zoe.lindqvist@lumen.example.com
nats req users.get_many '{"ids": ["'$zoe'", "nobody"]}'
nats req users.memberships $zoe
nats req users.org_list '{"organizationId": "'$lumen'", "roles": ["owner", "admin"], "limit": 3}'

# On behalf of a user. Errors are headers and a body.
nats req users.whoami '' -H "$token"
nats req users.get nobody -H "$token"

# Who answers, what, and how often.
nats micro ls
nats micro info users
nats micro stats users
