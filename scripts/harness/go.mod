module github.com/understudy-mq/understudy/scripts/harness

go 1.26.0

require github.com/go-stomp/stomp/v3 v3.1.5

require (
	github.com/gmallard/stompngo v1.0.13
	github.com/understudy-mq/understudy v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/VictoriaMetrics/metrics v1.35.1 // indirect
	github.com/valyala/fastrand v1.1.0 // indirect
	github.com/valyala/histogram v1.2.0 // indirect
)

replace github.com/understudy-mq/understudy => ../..
