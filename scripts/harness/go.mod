module github.com/understudy-mq/understudy/scripts/harness

go 1.26.0

require github.com/go-stomp/stomp/v3 v3.1.5

require github.com/gmallard/stompngo v1.0.13
