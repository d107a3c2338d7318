# responder as it runs in production: `docker run -e DATABASE_URL=… -e NATS_URL=… IMAGE`

# A tag moves: it gets security updates, and whatever else its owner puts there. To build from what
# you have looked at, name the digest in both places, `python:3.11-slim@sha256:…`. This prints it:
# `docker buildx imagetools inspect python:3.11-slim`. Renew it as you renew the locks.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml setup.py requirements-image.lock README.md LICENSE ./
COPY responder ./responder
# Nothing is installed whose hash is not in the lock, not even what builds our own package, which is
# gone again afterwards.
RUN python -m venv /app \
    && /app/bin/pip install --no-cache-dir --require-hashes -r requirements-image.lock \
    && /app/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /app/bin/pip uninstall --yes setuptools

FROM python:3.11-slim
COPY --from=build /app /app
# In a container, no program but ours is on its loopback: who may connect is decided where ports are
# published.
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
