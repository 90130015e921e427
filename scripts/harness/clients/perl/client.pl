# A producer or a consumer with Net::Stomp as Debian ships it (libnet-stomp-perl). What it is told and what it says: ../../interop/protocol.go.
use strict;
use warnings;
use JSON::PP;
use Net::Stomp;
use POSIX ();
use Time::HiRes qw(sleep time);

$| = 1;
my $job = decode_json($ENV{JOB});
my $patience = 60;    # seconds for one frame that has to come
my $stopped  = 0;
$SIG{TERM} = sub { $stopped = 1 };

sub say_line { print "$_[0]\n" }

# Says what went wrong and ends. Net::Stomp would connect again by itself; a client that has to is one that noticed.
sub fail {
    my ( $message, $headers ) = @_;
    my %strings = map { $_ => "$headers->{$_}" } keys %{ $headers || {} };    # JSON::PP writes what was used as a number as one
    say_line( 'E ' . JSON::PP->new->canonical->encode( { message => "$message", headers => \%strings } ) );
    POSIX::_exit(1);
}

# Net::Stomp tells its logger when it has lost the connection, which is the documented place to hear of it.
package Watch {
    sub new { return bless {}, shift }
    sub trace { }
    sub debug { }
    sub info  { }
    sub warn  { my ( $self, $message ) = @_; main::fail("Net::Stomp: $message") }
    sub fatal { my ( $self, @message ) = @_; main::fail("Net::Stomp: @message") }
}

my $stomp = Net::Stomp->new( { hostname => $job->{host}, port => $job->{port}, reconnect_attempts => 1, logger => Watch->new } );

# The next frame, or undef when none came in time.
sub next_frame {
    my ($timeout) = @_;
    return undef unless $stomp->can_read( { timeout => $timeout } );
    my $frame = $stomp->receive_frame( { timeout => $patience } );
    fail('connection ended') unless defined $frame;
    fail( $frame->headers->{message} // 'ERROR', $frame->headers ) if $frame->command eq 'ERROR';
    return $frame;
}

my %login = ( login => $job->{login}, passcode => $job->{passcode} );
$login{host} = $job->{vhost} if $job->{vhost} ne '';
my $connected = $stomp->connect( \%login );
fail('connection ended') unless $connected;
fail( $connected->headers->{message} // 'no CONNECTED', $connected->headers ) if $connected->command ne 'CONNECTED';

my $open = 0;    # receipts that were asked for and have not come

sub receipts_down_to {
    my ($most) = @_;
    while ( $open > $most ) {
        my $frame = next_frame($patience) or fail("$open receipts did not come");
        next if $frame->command ne 'RECEIPT';
        say_line( 'C ' . $frame->headers->{'receipt-id'} ) if $frame->headers->{'receipt-id'} =~ /^\d+$/;
        $open--;
    }
}

sub produce {
    say_line('R');
    <STDIN>;
    my $start = time;
    for my $seq ( 1 .. $job->{count} ) {
        my $due = $start + ( $seq - 1 ) / $job->{rate};
        while ( ( my $pause = $due - time ) > 0 ) {    # receipts are taken while there is time
            if ($open) {
                my $frame = next_frame($pause) or next;
                say_line( 'C ' . $frame->headers->{'receipt-id'} );
                $open--;
            }
            else { sleep $pause }
        }
        receipts_down_to( $job->{window} - 1 );
        say_line("S $seq");
        my $body = "$job->{run} $seq ";
        $body .= 'x' x ( $job->{size} - length $body );
        $open++;
        $stomp->send( { destination => $job->{destination}, body => $body, receipt => $seq, %{ $job->{headers} } } );
    }
    receipts_down_to(0);
}

my @unacked;

sub acknowledge {
    my ( $keep, $receipt ) = @_;
    while ( @unacked > $keep ) {
        my $frame = shift @unacked;
        my %last = $receipt && !@unacked ? ( receipt => $receipt ) : ();
        $open++ if %last;
        $stomp->ack( { frame => $frame, %last } );
        say_line( 'A ' . ( split / /, $frame->body )[1] );
    }
}

sub consume {
    $stomp->subscribe( { destination => $job->{destination}, id => 1, ack => 'client-individual', %{ $job->{headers} } } );
    say_line('R');
    until ($stopped) {
        my $frame = next_frame(0.1) or next;
        next if $frame->command ne 'MESSAGE';
        say_line( 'M ' . join( ' ', ( split / /, $frame->body )[ 0, 1 ] ) . ' ' . length $frame->body );
        push @unacked, $frame;
        acknowledge( $job->{hold} );
    }
    acknowledge( 0, 'last' );
    receipts_down_to(0);
}

$job->{role} eq 'produce' ? produce() : consume();
$stomp->disconnect;
say_line('B');
