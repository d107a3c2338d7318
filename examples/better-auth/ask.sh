# Sign in as Ada, and ask with her tokens: bash ask.sh
app=${APP:-http://localhost:3000} http=${HTTP_URL:-http://localhost:8080}
responder=${RESPONDER:-docker compose exec -T responder-1 responder} # or a program on your PATH
cookies=$(mktemp) && trap 'rm "$cookies"' EXIT

curl -sSf -c "$cookies" -H "Content-Type: application/json" -o /dev/null \
  -d '{"email": "ada@example.com", "password": "correct horse battery staple"}' \
  "$app/api/auth/sign-in/email"

# One that Better Auth signs with a key, and one that the application signs with its secret.
for path in api/auth/token own-token; do
  token=$(curl -sSf -b "$cookies" "$app/$path" | sed 's/.*"token":"\([^"]*\)".*/\1/')
  curl -sSf -H "Authorization: Bearer $token" "$http/api/v1/users/email/ada@example.com" && echo
  $responder request --json --token "$token" users.by_email grace@example.com
done
