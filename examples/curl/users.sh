# Ask for users over HTTP, on behalf of the user of a token: bash users.sh
token="Authorization: Bearer $OWNER"
zoe=KbO8WbOTItGbdi0KY5YfJyfimmurNJra lumen=9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud # of the demo

curl -sSw "\n" -H "$token" "$HTTP_URL/api/v1/me"
curl -sSw "\n" -H "$token" "$HTTP_URL/api/v1/users/$zoe?organizationId=$lumen"
curl -sSw "\n" -H "$token" "$HTTP_URL/api/v1/users/email/zoe.lindqvist@lumen.example.com"
curl -sSw "\n" -H "$token" "$HTTP_URL/api/v1/users?id=$zoe&id=nobody"
curl -sSw "\n" -H "$token" "$HTTP_URL/api/v1/users/$zoe/memberships"
curl -sSw "\n" -H "$token" "$HTTP_URL/api/v1/organizations/$lumen/users?role=owner&role=admin&limit=3"

# Errors are problem+json; with --fail-with-body curl ends with 22.
curl -sSw "\n" --fail-with-body -H "$token" "$HTTP_URL/api/v1/users/nobody"
curl -sSw "\n" -i "$HTTP_URL/api/v1/me" # 401: there is no token
