# responder as it runs in production: `docker run -e DATABASE_URL=… -e NATS_URL=… IMAGE`

FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY responder ./responder
RUN python -m venv /app && /app/bin/pip install --no-cache-dir -c requirements.lock .

FROM python:3.11-slim
COPY --from=build /app /app
# In a container, its own loopback is nobody's: who may connect is decided where ports are published.
ENV PATH=/app/bin:$PATH \
    RESPONDER_HTTP_LISTEN=0.0.0.0:8080 \
    RESPONDER_ADMIN_LISTEN=0.0.0.0:8081
EXPOSE 8080 8081
USER 10001:10001
WORKDIR /
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['RESPONDER_ADMIN_LISTEN'].rpartition(':')[2]), timeout=2); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["responder"]
CMD ["serve"]
